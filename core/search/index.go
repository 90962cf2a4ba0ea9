package search

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/blevesearch/bleve/v2"
	"github.com/blevesearch/bleve/v2/analysis/analyzer/custom"
	"github.com/blevesearch/bleve/v2/analysis/analyzer/keyword"
	"github.com/blevesearch/bleve/v2/analysis/tokenizer/whitespace"
	"github.com/blevesearch/bleve/v2/index/scorch"
	"github.com/blevesearch/bleve/v2/mapping"
	"github.com/blevesearch/bleve/v2/numeric"
	"github.com/blevesearch/bleve/v2/search"
	"github.com/blevesearch/bleve/v2/search/query"

	"github.com/tracegate/tracegate/core/chat"
)

// format is that of documents and positions. An index of another one is built anew.
const format = "1"

// Fields of a document. Nothing is stored but what is searched: results come from the
// database.
const (
	fieldConversation = "c"
	fieldSender       = "s"
	fieldSeq          = "q"
	fieldSentAt       = "d"
	fieldTerms        = "t"
)

type document struct {
	Conversation string  `json:"c"`
	Sender       string  `json:"s"`
	Seq          float64 `json:"q"`
	SentAt       float64 `json:"d"` // microseconds
	Terms        string  `json:"t"`
}

func newMapping() (mapping.IndexMapping, error) {
	m := bleve.NewIndexMapping()
	// Terms come analyzed, see analyze; they are only taken apart again.
	if err := m.AddCustomAnalyzer("terms", map[string]any{"type": custom.Name, "tokenizer": whitespace.Name}); err != nil {
		return nil, fmt.Errorf("add analyzer: %w", err)
	}
	doc := bleve.NewDocumentStaticMapping()
	for field, analyzer := range map[string]string{fieldConversation: keyword.Name, fieldSender: keyword.Name, fieldTerms: "terms"} {
		f := bleve.NewTextFieldMapping()
		f.Analyzer, f.Store, f.DocValues, f.IncludeInAll = analyzer, false, false, false
		f.IncludeTermVectors = field == fieldTerms // positions, for what stands side by side
		doc.AddFieldMappingsAt(field, f)
	}
	for _, field := range []string{fieldSeq, fieldSentAt} {
		f := bleve.NewNumericFieldMapping()
		f.Store, f.IncludeInAll, f.DocValues = false, false, field == fieldSentAt // pages are sorted by it
		doc.AddFieldMappingsAt(field, f)
	}
	m.DefaultMapping = doc
	return m, nil
}

// Index is one copy of the index, in a folder that it has for itself. It is safe for
// concurrent use. Close it.
type Index struct {
	dir   string
	name  string // of this copy; a new one has another
	bleve bleve.Index
}

// OpenIndex opens the index of a history of messages (see store.Epoch), or makes an empty
// one where there is none, or one that is broken or belongs to another history, or where
// it is wanted anew.
func OpenIndex(dir, epoch string, anew bool, log *slog.Logger) (*Index, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	x, err := openIndex(dir, epoch)
	switch {
	case err == nil && !anew:
		return x, nil
	case err == nil:
		if err := x.Close(); err != nil {
			return nil, fmt.Errorf("close index: %w", err)
		}
	case errors.Is(err, errLocked):
		return nil, fmt.Errorf("open index: %w", err)
	case !errors.Is(err, fs.ErrNotExist):
		log.Warn("the search index cannot be used and is built anew", "dir", dir, "error", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
		return nil, fmt.Errorf("remove index: %w", err)
	}
	if x, err = newIndex(dir, epoch); err != nil {
		return nil, fmt.Errorf("make index: %w", err)
	}
	return x, nil
}

var errLocked = errors.New("another process has it open")

// openTimeout is how long a process that is ending may still hold the index.
const openTimeout = "5s"

func openIndex(dir, epoch string) (*Index, error) {
	path := filepath.Join(dir, "index")
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	opened, err := bleve.OpenUsing(path, map[string]any{"bolt_timeout": openTimeout})
	if err != nil {
		if strings.Contains(err.Error(), "timeout") { // bbolt's, which bleve does not wrap
			return nil, errLocked
		}
		return nil, fmt.Errorf("open: %w", err)
	}
	x := &Index{dir: dir, bleve: opened}
	about, err := opened.GetInternal([]byte("about"))
	if err == nil {
		was, name, _ := strings.Cut(string(about), "\n")
		x.name = name
		if was != format+" "+epoch || name == "" {
			err = fmt.Errorf("it is of %q, want %q", was, format+" "+epoch)
		}
	}
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return x, nil
}

func newIndex(dir, epoch string) (*Index, error) {
	m, err := newMapping()
	if err != nil {
		return nil, err
	}
	made, err := bleve.NewUsing(filepath.Join(dir, "index"), m, scorch.Name, scorch.Name, nil)
	if err != nil {
		return nil, err
	}
	x := &Index{dir: dir, name: strings.ToLower(rand.Text()[:10]), bleve: made}
	if err := made.SetInternal([]byte("about"), []byte(format+" "+epoch+"\n"+x.name)); err != nil {
		return nil, errors.Join(err, made.Close())
	}
	return x, nil
}

// Close ends it.
func (x *Index) Close() error { return x.bleve.Close() }

// Name names this copy.
func (x *Index) Name() string { return x.name }

func positionKey(conversation string) []byte { return []byte("at/" + conversation) }

// Position is the seq up to which a conversation is in the index.
func (x *Index) Position(conversation string) (int64, error) {
	b, err := x.bleve.GetInternal(positionKey(conversation))
	if err != nil || len(b) != 8 {
		return 0, err
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

// Update is entries of a conversation, in order after its position; there is at least one.
type Update struct {
	Conversation string
	Entries      []chat.Searchable
}

// Apply takes entries up and moves the positions of their conversations: all or nothing.
// It returns when that is durable, which costs much the same for one entry as for hundreds.
func (x *Index) Apply(updates ...Update) error {
	if len(updates) == 0 {
		return nil
	}
	batch := x.bleve.NewBatch()
	for _, u := range updates {
		if err := add(batch, u); err != nil {
			return err
		}
	}
	if err := x.bleve.Batch(batch); err != nil {
		return fmt.Errorf("write batch: %w", err)
	}
	return nil
}

func add(batch *bleve.Batch, u Update) error {
	for _, e := range u.Entries {
		if e.Message == 0 {
			continue
		}
		p := place{u.Conversation, e.Message}
		terms := analyze(joinedText(e.Text, e.FileName))
		if len(terms) == 0 { // recalled, among others
			batch.Delete(p.id())
			continue
		}
		doc := document{Conversation: u.Conversation, Sender: e.Sender, Seq: float64(e.Message), SentAt: micros(e.SentAt), Terms: joined(terms)}
		if err := batch.Index(p.id(), doc); err != nil {
			return fmt.Errorf("index message: %w", err)
		}
	}
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(u.Entries[len(u.Entries)-1].Seq))
	batch.SetInternal(positionKey(u.Conversation), at[:])
	return nil
}

// order is that of the time of sending.
func order(newestFirst bool) search.SortOrder {
	return search.SortOrder{
		&search.SortField{Field: fieldSentAt, Type: search.SortFieldAsNumber, Desc: newestFirst},
		&search.SortDocID{Desc: newestFirst},
	}
}

// find returns at most size documents after a cursor, newest first.
func (x *Index) find(ctx context.Context, q query.Query, from cursor, size int) ([]cursor, error) {
	r := bleve.NewSearchRequestOptions(q, size, 0, false)
	r.SortByCustom(order(true))
	r.Score = "none"
	if after := from.after(); after != nil {
		r.SetSearchAfter(after)
	}
	found, err := x.bleve.SearchInContext(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("search index: %w", err)
	}
	out := make([]cursor, 0, len(found.Hits))
	for _, d := range found.Hits {
		p, ok := parsePlace(d.ID)
		if !ok || len(d.Sort) != 2 {
			return nil, fmt.Errorf("document %q is not one of ours", d.ID)
		}
		at, err := numeric.PrefixCoded(d.Sort[0]).Int64()
		if err != nil {
			return nil, fmt.Errorf("document %q: %w", d.ID, err)
		}
		out = append(out, cursor{int64(numeric.Int64ToFloat64(at)), p})
	}
	return out, nil
}

// Trim deletes the oldest documents past limit, at most size at a time, and says whether
// there may be more.
func (x *Index) Trim(ctx context.Context, limit uint64, size int) (more bool, err error) {
	n, err := x.bleve.DocCount()
	if err != nil || n <= limit {
		return false, err
	}
	size = int(min(uint64(size), n-limit))
	r := bleve.NewSearchRequestOptions(bleve.NewMatchAllQuery(), size, 0, false)
	r.SortByCustom(order(false))
	found, err := x.bleve.SearchInContext(ctx, r)
	if err != nil {
		return false, fmt.Errorf("find the oldest: %w", err)
	}
	batch := x.bleve.NewBatch()
	for _, d := range found.Hits {
		batch.Delete(d.ID)
	}
	if err := x.bleve.Batch(batch); err != nil {
		return false, fmt.Errorf("delete the oldest: %w", err)
	}
	return n-uint64(size) > limit, nil
}

// Size is how many messages it has and how many bytes its files.
func (x *Index) Size() (messages uint64, bytes int64, err error) {
	if messages, err = x.bleve.DocCount(); err != nil {
		return 0, 0, err
	}
	err = filepath.WalkDir(x.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // files come and go while it is written
		}
		if info, err := d.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	return messages, bytes, err
}

// build makes the query of a search: what is looked for, in what the user may see.
func build(q Query, phrases []phrase, spans map[string]chat.Span) query.Query {
	all := bleve.NewBooleanQuery()
	for _, p := range phrases {
		var one query.Query
		if len(p.terms) == 1 {
			t := bleve.NewTermQuery(p.terms[0])
			t.SetField(fieldTerms)
			one = t
		} else {
			one = query.NewPhraseQuery(p.terms, fieldTerms)
		}
		if p.not {
			all.AddMustNot(one)
		} else {
			all.AddMust(one)
		}
	}
	if q.Sender != "" {
		s := bleve.NewTermQuery(q.Sender)
		s.SetField(fieldSender)
		all.AddMust(s)
	}
	if !q.After.IsZero() || !q.Before.IsZero() {
		all.AddMust(times(q.After, q.Before))
	}
	var in []query.Query
	for conversation, span := range spans {
		in = append(in, within(conversation, span))
	}
	all.AddMust(bleve.NewDisjunctionQuery(in...))
	return all
}

func times(after, before time.Time) query.Query {
	var low, high *float64
	if !after.IsZero() {
		v := micros(after)
		low = &v
	}
	if !before.IsZero() {
		v := micros(before)
		high = &v
	}
	q := bleve.NewNumericRangeQuery(low, high)
	q.SetField(fieldSentAt)
	return q
}

// within is what a user may see of a conversation from its beginning on. Where it ends,
// for who has left, is left to the database, as all of it is in the end: ranges are dear.
func within(conversation string, span chat.Span) query.Query {
	c := bleve.NewTermQuery(conversation)
	c.SetField(fieldConversation)
	if span.After == 0 {
		return c
	}
	low := float64(span.After + 1)
	r := bleve.NewNumericRangeQuery(&low, nil)
	r.SetField(fieldSeq)
	return bleve.NewConjunctionQuery(c, r)
}
