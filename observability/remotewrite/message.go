package remotewrite

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protowire"
)

// sample is one value of one series.
type sample struct {
	labels map[string]string
	value  float64
}

// samples are those of families, in Prometheus' own form: a histogram is a series for each
// of its buckets, a sum and a count.
func samples(families []*dto.MetricFamily, extra map[string]string) []sample {
	var out []sample
	for _, f := range families {
		for _, m := range f.GetMetric() {
			add := func(name string, value float64, more ...string) {
				labels := maps.Clone(extra)
				if labels == nil {
					labels = map[string]string{}
				}
				for _, l := range m.GetLabel() {
					labels[l.GetName()] = l.GetValue()
				}
				for i := 0; i < len(more); i += 2 {
					labels[more[i]] = more[i+1]
				}
				labels["__name__"] = name
				out = append(out, sample{labels, value})
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				add(f.GetName(), m.GetCounter().GetValue())
			case dto.MetricType_GAUGE:
				add(f.GetName(), m.GetGauge().GetValue())
			case dto.MetricType_HISTOGRAM:
				h := m.GetHistogram()
				for _, b := range h.GetBucket() {
					if !math.IsInf(b.GetUpperBound(), 1) {
						add(f.GetName()+"_bucket", float64(b.GetCumulativeCount()), "le", strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64))
					}
				}
				add(f.GetName()+"_bucket", float64(h.GetSampleCount()), "le", "+Inf")
				add(f.GetName()+"_sum", h.GetSampleSum())
				add(f.GetName()+"_count", float64(h.GetSampleCount()))
			}
		}
	}
	return out
}

// message is an encoded prometheus.WriteRequest (remote-write 1.0). Its four messages are
// written here, because Prometheus' module for them is all of Prometheus. It has the methods
// by which the client takes an encoded message.
type message []byte

// Size is the length.
func (m message) Size() int { return len(m) }

// MarshalToSizedBuffer copies it.
func (m message) MarshalToSizedBuffer(b []byte) (int, error) { return copy(b, m), nil }

// encode writes each sample as a series with one value. Labels are sorted by name, which
// the protocol asks for.
func encode(samples []sample, at time.Time) message {
	var out, series, part []byte
	for _, s := range samples {
		series = series[:0]
		for _, name := range slices.Sorted(maps.Keys(s.labels)) {
			part = appendText(part[:0], 1, name)
			part = appendText(part, 2, s.labels[name])
			series = appendPart(series, 1, part)
		}
		part = protowire.AppendTag(part[:0], 1, protowire.Fixed64Type)
		part = protowire.AppendFixed64(part, math.Float64bits(s.value))
		part = protowire.AppendTag(part, 2, protowire.VarintType)
		part = protowire.AppendVarint(part, uint64(at.UnixMilli()))
		series = appendPart(series, 2, part)
		out = appendPart(out, 1, series)
	}
	return out
}

func appendText(b []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

func appendPart(b []byte, num protowire.Number, part []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), part)
}
