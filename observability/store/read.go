package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/sli"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 512 << 20

// sums are the columns of sumsSQL and listSQL. Statistics are asked for all the time and are mostly
// maps, which clickhouse-go boxes value by value: that took a fifth of a window of minutes.
type sums struct {
	start                                    proto.ColDateTime
	group, color, env, tenant, service, pool *proto.ColLowCardinality[string]
	requests, errors                         proto.ColUInt64
	index                                    proto.ColInt16
	count                                    proto.ColUInt64
	latency                                  *proto.ColMap[int16, uint64]
	newest                                   *proto.ColDateTime64
}

func newSums() *sums {
	s := &sums{
		start: proto.ColDateTime{Location: time.UTC},
		group: lowData(), color: lowData(), env: lowData(), tenant: lowData(), service: lowData(), pool: lowData(), newest: timeData(),
	}
	s.latency = proto.NewMap[int16, uint64](&s.index, &s.count)
	return s
}

// target are the columns in their order; what they are called does not count.
func (s *sums) target() proto.Results {
	columns := []proto.ColResult{
		&s.start, s.group, s.color, s.env, s.tenant, s.service, s.pool,
		&summed{ColResult: &s.requests}, &summed{ColResult: &s.errors}, &summed{ColResult: s.latency}, &summed{ColResult: s.newest},
	}
	out := make(proto.Results, len(columns))
	for i, c := range columns {
		out[i].Data = c
	}
	return out
}

// summed is a column that may be of a SimpleAggregateFunction, whose values are those of its
// sum: to have ClickHouse convert them takes a tenth of a question.
type summed struct {
	proto.ColResult
	named proto.ColumnType
}

// Infer implements [proto.Inferable].
func (c *summed) Infer(t proto.ColumnType) error {
	c.named = t
	if list, ok := strings.CutPrefix(string(t), "SimpleAggregateFunction("); ok {
		_, of, _ := strings.Cut(strings.TrimSuffix(list, ")"), ", ")
		t = proto.ColumnType(of)
	}
	if t.Conflicts(c.ColResult.Type()) {
		return fmt.Errorf("a column is %s, not of %s", c.named, c.ColResult.Type())
	}
	return nil
}

func (c *summed) Type() proto.ColumnType { return c.named }

// row is statistics without quantiles and without the end of their window, and what the
// quantiles are of.
func (s *sums) row(i int) (sli.Stats, sli.Histogram) {
	st := sli.Stats{
		Group: group.ID(s.group.Row(i)), Env: s.env.Row(i), Tenant: s.tenant.Row(i), Service: s.service.Row(i), Pool: s.pool.Row(i),
		Requests: s.requests[i], Errors: s.errors[i], Newest: s.newest.Row(i).UTC(),
	}
	st.Window.From = s.start.Row(i).UTC()
	st.Color, _ = group.ParseColor(s.color.Row(i))
	from, to := 0, int(s.latency.Offsets[i])
	if i > 0 {
		from = int(s.latency.Offsets[i-1])
	}
	return st, sli.Histogram{Index: s.index[from:to], Count: s.count[from:to]} // sumMap gives keys in their order
}

// readSums runs sql, which is of [sums], calls each with every row, whose histogram is valid
// during the call only, and returns how many there were.
func (s *Store) readSums(ctx context.Context, sql string, params map[string]string, each func(sli.Stats, sli.Histogram)) (read int, err error) {
	q := url.Values{}
	for name, value := range params {
		q.Set("param_"+name, value)
	}
	q.Set("wait_end_of_query", "1") // an error is the status, not a part of the answer
	q.Set("default_format", "Native")
	err = s.request(ctx, q, []byte(sql), func(answer io.Reader) error {
		rows := newSums()
		target := rows.target()
		for r := proto.NewReader(io.LimitReader(answer, maxAnswer)); ; {
			var b proto.Block
			if err := b.DecodeRawBlock(r, 0, target); err != nil {
				if b.Columns == 0 && errors.Is(err, io.EOF) {
					return nil
				}
				return fmt.Errorf("decode answer: %w", err)
			}
			read += b.Rows
			for i := range b.Rows {
				each(rows.row(i))
			}
		}
	})
	return read, err
}
