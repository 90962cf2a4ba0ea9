package search

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/chat"
)

// BenchmarkIndex takes up messages of some 60 bytes, in batches as the feed does, and says
// what one costs on disk; then it looks for one word of two that are rare and common, in
// 200 conversations of a user among 1,000.
func BenchmarkIndex(b *testing.B) {
	index, err := OpenIndex(b.TempDir(), "epoch", false, quiet())
	if err != nil {
		b.Fatal(err)
	}
	defer index.Close()
	r := rand.New(rand.NewPCG(1, 2))
	word := func() string { return fmt.Sprintf("w%d", int(r.ExpFloat64()*400)) }
	seqs := map[string]int64{}
	start, messages := time.Now(), 0
	for b.Loop() {
		conversation := fmt.Sprintf("c%d", r.IntN(1000))
		entries := make([]chat.Searchable, 0, 100)
		for range cap(entries) {
			seqs[conversation]++
			words := make([]string, 0, 12)
			for range cap(words) {
				words = append(words, word())
			}
			entries = append(entries, chat.Searchable{
				Seq: seqs[conversation], Message: seqs[conversation], Sender: fmt.Sprintf("user%d", r.IntN(500)), SentAt: at.Add(time.Duration(messages) * time.Second), Text: strings.Join(words, " "),
			})
			messages++
		}
		if err := index.Apply(Update{conversation, entries}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(messages)/time.Since(start).Seconds(), "messages/s")
	_, bytes, err := index.Size()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(bytes)/float64(messages), "bytes/message")
	spans := map[string]chat.Span{}
	for i := range 200 {
		spans[fmt.Sprintf("c%d", i)] = chat.Span{}
	}
	for name, text := range map[string]string{"common": "w3", "rare": "w1500", "phrase": `"w3 w5"`} {
		asked := build(Query{Text: text}, split(text), spans)
		began := time.Now()
		const times = 20
		for range times {
			if _, err := index.find(context.Background(), asked, cursor{}, 21); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(time.Since(began).Microseconds())/times/1000, name+"-ms")
	}
}
