//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core/protocol"
)

// pair is two users with a conversation, both connected.
type pair struct {
	conversation     string
	sender, receiver net.Conn
	next             int64 // number of the next message
	sentAt           [4096]atomic.Int64
}

type meetArgs struct {
	Base  string
	Pairs int
}

// meet registers users, and connects each to one other.
func (l *load) meet(a meetArgs) (struct{}, error) {
	client := &http.Client{Timeout: 10 * time.Second}
	for i := range a.Pairs {
		names := []string{fmt.Sprintf("sender-%d", i), fmt.Sprintf("receiver-%d", i)}
		var tokens []string
		for _, name := range names {
			login := fmt.Sprintf(`{"name":%q,"password":"correct horse"}`, name)
			var answer struct{ Token string }
			if err := post(client, a.Base+"/v1/users", "", login, nil); err != nil {
				return struct{}{}, err
			}
			if err := post(client, a.Base+"/v1/sessions", "", login, &answer); err != nil {
				return struct{}{}, err
			}
			tokens = append(tokens, answer.Token)
		}
		var conversation struct{ ID string }
		if err := post(client, a.Base+"/v1/conversations", tokens[0], fmt.Sprintf(`{"with":%q}`, names[1]), &conversation); err != nil {
			return struct{}{}, err
		}
		var conns []net.Conn
		for _, token := range tokens {
			w := wire{
				path: "/v1/ws", greeted: true, header: func(int) string { return "Authorization: Bearer " + token + "\r\n" },
				hello: func(int, bool) []string { return []string{`{"id":1,"resume":{"epoch":""}}`} },
			}
			conn, err := w.open(net.Dialer{}, strings.TrimPrefix(a.Base, "http://"), i, false, bufio.NewReader(nil))
			if err != nil {
				return struct{}{}, err
			}
			conns = append(conns, conn)
		}
		l.pairs = append(l.pairs, &pair{conversation: conversation.ID, sender: conns[0], receiver: conns[1], next: 1})
	}
	return struct{}{}, nil
}

func post(client *http.Client, url, token, body string, answer any) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode >= 300:
		return fmt.Errorf("%s: %s: %s", url, res.Status, raw)
	case answer == nil:
		return nil
	}
	return json.Unmarshal(raw, answer)
}

type chatArgs struct {
	For       time.Duration
	InFlight  int     // messages of one sender that are not yet accepted
	PerSecond float64 // messages a second of all; 0: as many as go
}

// times are of one stage of messages.
type times struct{ P50, P99 time.Duration }

// sent is what came of a chat.
type sent struct {
	AcceptedRate, StoredRate float64
	Accepted, Stored         times
}

// talks is one measurement of all pairs.
type talks struct {
	args                   chatArgs
	begin                  time.Time
	pairs                  int
	messages               atomic.Int64
	accepted, stored       histogram
	lastAccepted, lastRead atomic.Int64 // nanoseconds from begin
}

// chat lets all pairs talk for a time and waits for all their messages.
func (l *load) chat(a chatArgs) (s sent, err error) {
	t := &talks{args: a, begin: time.Now(), pairs: len(l.pairs)}
	g, ctx := errgroup.WithContext(context.Background())
	for i, p := range l.pairs {
		last := new(atomic.Int64)
		last.Store(math.MaxInt64)
		free := make(chan struct{}, a.InFlight)
		first := p.next
		g.Go(func() error { return t.speak(ctx, p, i, free, last) })
		g.Go(func() error { return t.readAnswers(p, first, free, last) })
		g.Go(func() error { return t.readMessages(p, first, last) })
	}
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), context.Canceled) {
			return // all have ended well
		}
		for _, p := range l.pairs {
			_, _ = p.sender.SetReadDeadline(time.Now()), p.receiver.SetReadDeadline(time.Now())
		}
	})
	defer stop()
	if err := g.Wait(); err != nil {
		return s, err
	}
	n := float64(t.messages.Load())
	return sent{
		AcceptedRate: n / time.Duration(t.lastAccepted.Load()).Seconds(), StoredRate: n / time.Duration(t.lastRead.Load()).Seconds(),
		Accepted: times{t.accepted.quantile(0.5), t.accepted.quantile(0.99)},
		Stored:   times{t.stored.quantile(0.5), t.stored.quantile(0.99)},
	}, nil
}

// speak sends messages for a time; last is the number of the last one.
func (t *talks) speak(ctx context.Context, p *pair, number int, free chan struct{}, last *atomic.Int64) error {
	for i := 0; ; i++ {
		at := time.Now()
		if t.args.PerSecond > 0 {
			turn := float64(i) + float64(number)/float64(t.pairs) // pairs take turns
			at = t.begin.Add(time.Duration(turn * float64(t.pairs) / t.args.PerSecond * float64(time.Second)))
			if wait := time.Until(at); wait > 0 {
				<-time.After(wait)
			}
		}
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		if t.args.PerSecond == 0 {
			at = time.Now() // with a rate, what waits is late
		}
		done := time.Since(t.begin) >= t.args.For
		if done {
			last.Store(p.next)
		}
		p.sentAt[p.next%int64(len(p.sentAt))].Store(at.UnixNano())
		p.next++
		t.messages.Add(1)
		_, err := p.sender.Write(clientFrame(opText, fmt.Sprintf(
			`{"id":%d,"send":{"conversation":%q,"client_id":"message-%d","text":"%s%d:%d;a message of a usual length, as people write them to each other"}}`,
			p.next-1, p.conversation, p.next-1, mark, p.next-1, at.UnixNano())))
		if err != nil || done {
			return err
		}
	}
}

// readAnswers waits until all messages of a sender are accepted.
func (t *talks) readAnswers(p *pair, next int64, free <-chan struct{}, last *atomic.Int64) error {
	in := bufio.NewReaderSize(p.sender, 16<<10)
	for next <= last.Load() {
		payload, err := p.text(p.sender, in)
		if err != nil {
			return err
		}
		var f protocol.Frame
		if err := json.Unmarshal(payload, &f); err != nil {
			return err
		}
		switch {
		case f.Message != nil: // its own, stored
		case f.Accepted == nil || int64(f.ID) != next:
			return fmt.Errorf("message %d is answered by %s", next, payload)
		default:
			now := time.Now()
			t.accepted.add(time.Duration(now.UnixNano() - p.sentAt[next%int64(len(p.sentAt))].Load()))
			later(&t.lastAccepted, now.Sub(t.begin))
			next++
			<-free
		}
	}
	return nil
}

// readMessages waits until all messages have come to the receiver.
func (t *talks) readMessages(p *pair, next int64, last *atomic.Int64) error {
	in := bufio.NewReaderSize(p.receiver, 16<<10)
	for next <= last.Load() {
		payload, err := p.text(p.receiver, in)
		if err != nil {
			return err
		}
		seq, sent, _, err := marked(payload)
		if err != nil {
			return err
		}
		if seq != next {
			return fmt.Errorf("message %d came, %d was due", seq, next)
		}
		now := time.Now()
		t.stored.add(time.Duration(now.UnixNano() - sent))
		later(&t.lastRead, now.Sub(t.begin))
		next++
	}
	return nil
}

// text returns the next text, valid until the one after it.
func (p *pair) text(conn net.Conn, in *bufio.Reader) ([]byte, error) {
	for {
		op, payload, err := readFrame(in)
		if err != nil {
			return nil, err
		}
		if answered, err := (wire{}).answer(conn, op, payload); err != nil {
			return nil, err
		} else if !answered && op == opText {
			return payload, nil
		}
	}
}

// later keeps the latest.
func later(to *atomic.Int64, d time.Duration) {
	for {
		old := to.Load()
		if int64(d) <= old || to.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}
