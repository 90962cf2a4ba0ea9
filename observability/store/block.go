package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// Inserts of telemetry do not go through clickhouse-go's batches, which box every value and
// build columns of maps by reflection: that was more than half of what a stored span cost.
// Columns of ch-go, which clickhouse-go itself is made of, are filled directly, and one block
// of them is one request of ClickHouse's HTTP interface.

// column of a table: its name, its data, whose type must be the table's (a test compares),
// and what adds a row's value to it.
type column[T any] struct {
	name string
	data proto.ColInput
	add  func(*T)
}

// block is the columns of a table, to be filled again and again.
type block[T any] struct {
	columns []column[T]
	raw     proto.Buffer
}

// send writes rows as one block, which ClickHouse recognizes by its token.
func (b *block[T]) send(ctx context.Context, s *Store, table, token string, rows []T) error {
	body, err := b.encode(s.lz4, rows)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrUnfit, table, err)
	}
	names := make([]string, len(b.columns))
	for i, c := range b.columns {
		names[i] = "`" + c.name + "`"
	}
	if err := s.post(ctx, "INSERT INTO "+table+" ("+strings.Join(names, ",")+") FORMAT Native", token, body); err != nil {
		return fmt.Errorf("insert %d rows into %s: %w", len(rows), table, err)
	}
	return nil
}

// maxMessage bounds what is read of what ClickHouse says of an error.
const maxMessage = 64 << 10

// chunk is how much is compressed at once; ClickHouse's own are up to 1 MiB.
const chunk = 1 << 20

// encode gives the block in Native format, compressed in ClickHouse's framing.
func (b *block[T]) encode(lz4 *pool[*compress.Writer], rows []T) ([]byte, error) {
	b.raw.Reset()
	input := make(proto.Input, len(b.columns))
	for i, c := range b.columns {
		input[i] = proto.InputColumn{Name: c.name, Data: c.data}
	}
	input.Reset()
	for _, c := range b.columns {
		for i := range rows {
			c.add(&rows[i])
		}
	}
	if err := (proto.Block{Columns: len(input), Rows: len(rows)}).EncodeRawBlock(&b.raw, 0, input); err != nil {
		return nil, err
	}
	w := lz4.take()
	defer lz4.give(w)
	out := make([]byte, 0, len(b.raw.Buf)/4)
	for part := range slices.Chunk(b.raw.Buf, chunk) {
		if err := w.Compress(part); err != nil {
			return nil, err
		}
		out = append(out, w.Data...)
	}
	return out, nil
}

// post sends one insert and returns once ClickHouse has the rows.
func (s *Store) post(ctx context.Context, sql, token string, body []byte) error {
	return s.request(ctx, url.Values{
		"query": {sql}, "decompress": {"1"},
		"async_insert": {"0"}, "wait_end_of_query": {"1"}, // acknowledged means written
		"insert_deduplicate": {"1"}, "insert_deduplication_token": {token}, "deduplicate_blocks_in_dependent_materialized_views": {"1"},
	}, body, func(answer io.Reader) error { // to its end: only then all is well, and the connection is free
		if _, err := io.Copy(io.Discard, answer); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		return nil
	})
}

// request posts body and hands the answer to read, if it is not an error.
func (s *Store) request(ctx context.Context, q url.Values, body []byte, read func(io.Reader) error) error {
	q.Set("database", s.cfg.Database)
	for name, value := range s.cfg.Cluster.settings() {
		if !q.Has(name) {
			q.Set(name, fmt.Sprint(value))
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL()+"/?"+q.Encode(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.SetBasicAuth(s.cfg.User, string(s.cfg.Password))
	resp, err := s.http.Do(req)
	if err != nil {
		var of *url.Error // it repeats the whole statement
		if errors.As(err, &of) {
			return of.Err
		}
		return err
	}
	defer resp.Body.Close()
	refused, code := strconv.ParseInt(resp.Header.Get("X-ClickHouse-Exception-Code"), 10, 32)
	if code != nil && resp.StatusCode == http.StatusOK {
		return read(resp.Body)
	}
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	message := strings.TrimSpace(string(said))
	if code == nil {
		return &clickhouse.Exception{Code: int32(refused), Message: message}
	}
	return fmt.Errorf("status %d: %s", resp.StatusCode, message)
}

// pool keeps what is costly to make for a later use, a few of each.
type pool[T any] struct {
	idle chan T
	make func() T
}

func newPool[T any](n int, create func() T) *pool[T] { return &pool[T]{make(chan T, n), create} }

func (p *pool[T]) take() T {
	select {
	case v := <-p.idle:
		return v
	default:
		return p.make()
	}
}

func (p *pool[T]) give(v T) {
	select {
	case p.idle <- v:
	default:
	}
}

// Columns by their type. Each function makes the data and what fills it.

func textColumn[T any](name string, of func(*T) string) column[T] {
	c := new(proto.ColStr)
	return column[T]{name, c, func(r *T) { c.Append(of(r)) }}
}

func lowColumn[T any](name string, of func(*T) string) column[T] {
	c := new(proto.ColStr).LowCardinality()
	return column[T]{name, c, func(r *T) { c.Append(of(r)) }}
}

func timeColumn[T any](name string, of func(*T) time.Time) column[T] {
	c := new(proto.ColDateTime64).WithPrecision(proto.PrecisionNano).WithLocation(time.UTC)
	return column[T]{name, c, func(r *T) { c.AppendRaw(proto.DateTime64(of(r).UnixNano())) }}
}

func uint64Column[T any](name string, of func(*T) uint64) column[T] {
	c := new(proto.ColUInt64)
	return column[T]{name, c, func(r *T) { c.Append(of(r)) }}
}

func uint32Column[T any](name string, of func(*T) uint32) column[T] {
	c := new(proto.ColUInt32)
	return column[T]{name, c, func(r *T) { c.Append(of(r)) }}
}

func uint8Column[T any](name string, of func(*T) uint8) column[T] {
	c := new(proto.ColUInt8)
	return column[T]{name, c, func(r *T) { c.Append(of(r)) }}
}

func int32Column[T any](name string, of func(*T) int32) column[T] {
	c := new(proto.ColInt32)
	return column[T]{name, c, func(r *T) { c.Append(of(r)) }}
}

func floatColumn[T any](name string, of func(*T) float64) column[T] {
	c := new(proto.ColFloat64)
	return column[T]{name, c, func(r *T) { c.Append(of(r)) }}
}

func boolColumn[T any](name string, of func(*T) bool) column[T] {
	c := new(proto.ColBool)
	return column[T]{name, c, func(r *T) { c.Append(of(r)) }}
}

// attributes is a Map(LowCardinality(String), String). Keys are written in their order, so
// that a series is one value of them and equal maps compress well. The map of the row
// before, which all rows of a resource share, is not sorted again.
type attributes struct {
	*proto.ColMap[string, string]
	last uintptr
	kvs  []proto.KV[string, string]
}

func newAttributes() *attributes {
	return &attributes{ColMap: proto.NewMap[string, string](new(proto.ColStr).LowCardinality(), new(proto.ColStr))}
}

// Append implements [proto.ColumnOf].
func (a *attributes) Append(m map[string]string) {
	if id := reflect.ValueOf(m).Pointer(); id != a.last || len(m) != len(a.kvs) {
		a.last, a.kvs = id, a.kvs[:0]
		for k, v := range m {
			a.kvs = append(a.kvs, proto.KV[string, string]{Key: k, Value: v})
		}
		slices.SortFunc(a.kvs, func(x, y proto.KV[string, string]) int { return strings.Compare(x.Key, y.Key) })
	}
	a.AppendKV(a.kvs)
}

// Reset also forgets the last map, whose place in memory another may have by then.
func (a *attributes) Reset() {
	a.ColMap.Reset()
	clear(a.kvs)
	a.last, a.kvs = 0, a.kvs[:0]
}

func mapColumn[T any](name string, of func(*T) map[string]string) column[T] {
	c := newAttributes()
	return column[T]{name, c, func(r *T) { c.Append(of(r)) }}
}

// listColumn is an array with one element for each of a row's items.
func listColumn[T, I, V any](name string, data proto.ColumnOf[V], items func(*T) []I, of func(I) V) column[T] {
	c := proto.NewArray(data)
	var row []V
	return column[T]{name, c, func(r *T) {
		row = row[:0]
		for _, item := range items(r) {
			row = append(row, of(item))
		}
		c.Append(row)
	}}
}

// Elements of arrays.
func textData() *proto.ColStr                   { return new(proto.ColStr) }
func lowData() *proto.ColLowCardinality[string] { return new(proto.ColStr).LowCardinality() }
func floatData() *proto.ColFloat64              { return new(proto.ColFloat64) }
func countData() *proto.ColUInt64               { return new(proto.ColUInt64) }
func timeData() *proto.ColDateTime64 {
	return new(proto.ColDateTime64).WithPrecision(proto.PrecisionNano).WithLocation(time.UTC)
}

// itself is an item that is its own element.
func itself[V any](v V) V { return v }
