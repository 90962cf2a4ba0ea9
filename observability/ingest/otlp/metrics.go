package otlp

import (
	"math"
	"time"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"

	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/store"
)

// Metrics turns points into rows. A point whose name, attributes or buckets are beyond
// the limits is dropped and not cut, because what is cut would be another series; of a
// resource, a scope and an exemplar the rest is cut.
func (c Converter) Metrics(req *collectormetrics.ExportMetricsServiceRequest, now time.Time) *Result {
	m := metrics{Converter: c, r: newResult(Metrics), now: now}
	for _, rm := range req.GetResourceMetrics() {
		m.src = store.MetricSource{
			Resource: m.r.attributes(rm.GetResource().GetAttributes(), c.Limits), ResourceSchema: m.r.clip(rm.GetSchemaUrl(), c.Limits.Name),
		}
		m.src.Service = m.r.clip(m.src.Resource[serviceName], c.Limits.Name)
		for _, sm := range rm.GetScopeMetrics() {
			scope := sm.GetScope()
			m.src.Scope, m.src.ScopeVersion = m.r.clip(scope.GetName(), c.Limits.Name), m.r.clip(scope.GetVersion(), c.Limits.Name)
			m.src.ScopeAttributes, m.src.ScopeDropped = m.r.attributes(scope.GetAttributes(), c.Limits), scope.GetDroppedAttributesCount()
			m.src.ScopeSchema = m.r.clip(sm.GetSchemaUrl(), c.Limits.Name)
			m.shared = sizeOf(m.src.Resource) + sizeOf(m.src.ScopeAttributes)
			for _, metric := range sm.GetMetrics() {
				m.metric(metric)
			}
		}
	}
	return m.r
}

// metrics is the conversion of one message.
type metrics struct {
	Converter
	r      *Result
	now    time.Time
	src    store.MetricSource
	shared int64 // bytes of src in every row
}

// metric takes the points of one metric.
func (m *metrics) metric(in *metricsv1.Metric) {
	of := store.Point{Source: m.src, Name: in.GetName(), Description: m.r.clip(in.GetDescription(), m.Limits.Value), Unit: m.r.clip(in.GetUnit(), m.Limits.Name)}
	switch d := in.GetData().(type) {
	case *metricsv1.Metric_Gauge:
		of.Kind = store.Gauge
		each(m, of, d.Gauge.GetDataPoints(), m.number)
	case *metricsv1.Metric_Sum:
		of.Kind, of.Temporality, of.Monotonic = store.Sum, int32(d.Sum.GetAggregationTemporality()), d.Sum.GetIsMonotonic()
		each(m, of, d.Sum.GetDataPoints(), m.number)
	case *metricsv1.Metric_Histogram:
		of.Kind, of.Temporality = store.Histogram, int32(d.Histogram.GetAggregationTemporality())
		each(m, of, d.Histogram.GetDataPoints(), m.histogram)
	case *metricsv1.Metric_ExponentialHistogram:
		of.Kind, of.Temporality = store.ExponentialHistogram, int32(d.ExponentialHistogram.GetAggregationTemporality())
		each(m, of, d.ExponentialHistogram.GetDataPoints(), m.exponential)
	case *metricsv1.Metric_Summary:
		of.Kind = store.Summary
		each(m, of, d.Summary.GetDataPoints(), m.summary)
	default: // what it has for points is not known here: it counts as one
		m.r.Received++
		m.r.Dropped[UnsupportedMetric]++
	}
}

// dataPoint is what points of all types have.
type dataPoint interface {
	GetAttributes() []*commonv1.KeyValue
	GetStartTimeUnixNano() uint64
	GetTimeUnixNano() uint64
	GetFlags() uint32
}

// each makes a row of every point: what all have, then fill for what its type has.
func each[P dataPoint](m *metrics, of store.Point, points []P, fill func(*store.Point, P) Reason) {
	for _, p := range points {
		m.r.Received++
		row := of
		reason := m.common(&row, p)
		if reason == "" {
			reason = fill(&row, p)
		}
		if reason == "" {
			reason = m.fits(&row)
		}
		if reason != "" {
			m.r.Dropped[reason]++
			continue
		}
		m.r.Points = append(m.r.Points, row)
	}
}

// common fills in what every type has.
func (m *metrics) common(row *store.Point, p dataPoint) Reason {
	switch {
	case row.Name == "":
		return NoName
	case len(row.Name) > m.Limits.Name:
		return TooLarge
	}
	at, ok := nano(p.GetTimeUnixNano())
	if !ok {
		return NoTime
	}
	if reason, late := m.late(at, m.now); late {
		return reason
	}
	row.Time, row.Flags = at, p.GetFlags()
	if row.Start, ok = nano(p.GetStartTimeUnixNano()); !ok {
		row.Start = time.Unix(0, 0).UTC()
	}
	if row.Attributes, ok = m.identity(p.GetAttributes()); !ok {
		return TooLarge
	}
	row.Traffic = m.pointTraffic(row)
	return ""
}

// identity is attributes whole; ok is false where they are beyond the limits.
func (m *metrics) identity(kvs []*commonv1.KeyValue) (attrs map[string]string, ok bool) {
	if len(kvs) > m.Limits.Attributes {
		return nil, false
	}
	attrs = make(map[string]string, len(kvs))
	for _, kv := range kvs {
		value := text(kv.GetValue())
		if len(kv.GetKey()) > m.Limits.Key || len(value) > m.Limits.Value {
			return nil, false
		}
		if _, taken := attrs[kv.GetKey()]; !taken {
			attrs[kv.GetKey()] = value
		}
	}
	return attrs, true
}

// pointTraffic is a point's place in the traffic groups.
func (m *metrics) pointTraffic(row *store.Point) store.Traffic {
	either := func(key string) string {
		if v := row.Attributes[key]; v != "" {
			return v
		}
		return m.src.Resource[key]
	}
	t := m.placeLoosely("", either)
	t.Pool = m.r.clip(either(semconv.Pool), m.Limits.Name)
	return t
}

// fits bounds the message's rows in number and, as each row has its source's attributes,
// in what they become.
func (m *metrics) fits(row *store.Point) Reason {
	if len(m.r.Points) >= m.Limits.Points {
		return TooManyPoints
	}
	size := rowSize + m.shared + sizeOf(row.Attributes) + int64(len(row.Name)+len(row.Description)) +
		8*int64(len(row.Bounds)+len(row.Buckets)+len(row.Positive.Counts)+len(row.Negative.Counts)+2*len(row.Quantiles))
	for _, e := range row.Exemplars {
		size += rowSize + sizeOf(e.Attributes)
	}
	if m.r.Size+size > m.Limits.PointBytes {
		return TooManyPoints
	}
	m.r.Size += size
	return ""
}

// rowSize is about what a row has besides text and buckets.
const rowSize = 128

func sizeOf(attrs map[string]string) int64 {
	n := 0
	for k, v := range attrs {
		n += len(k) + len(v)
	}
	return int64(n)
}

// unrecorded says that the sender had no value at that time; the row says so by its flag.
func unrecorded(flags uint32) bool {
	return flags&uint32(metricsv1.DataPointFlags_DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK) != 0
}

func (m *metrics) number(row *store.Point, p *metricsv1.NumberDataPoint) Reason {
	switch v := p.GetValue().(type) {
	case *metricsv1.NumberDataPoint_AsDouble:
		row.Value = v.AsDouble
	case *metricsv1.NumberDataPoint_AsInt:
		row.Value = float64(v.AsInt)
	default:
		if !unrecorded(row.Flags) {
			return NoValue
		}
	}
	row.Exemplars = m.exemplars(p.GetExemplars())
	return ""
}

func (m *metrics) histogram(row *store.Point, p *metricsv1.HistogramDataPoint) Reason {
	row.Count, row.Sum, row.Min, row.Max = p.GetCount(), p.GetSum(), p.GetMin(), p.GetMax()
	row.Bounds, row.Buckets = p.GetExplicitBounds(), p.GetBucketCounts()
	if len(row.Buckets) > m.Limits.Buckets || len(row.Bounds) > m.Limits.Buckets {
		return TooLarge
	}
	if len(row.Bounds) > 0 || len(row.Buckets) > 0 { // none at all is a count and a sum
		if len(row.Buckets) != len(row.Bounds)+1 || !rising(row.Bounds) || !adds(row.Count, row.Buckets) {
			return BadBuckets
		}
	}
	row.Exemplars = m.exemplars(p.GetExemplars())
	return ""
}

func (m *metrics) exponential(row *store.Point, p *metricsv1.ExponentialHistogramDataPoint) Reason {
	row.Count, row.Sum, row.Min, row.Max = p.GetCount(), p.GetSum(), p.GetMin(), p.GetMax()
	row.Scale, row.ZeroCount = p.GetScale(), p.GetZeroCount()
	row.Positive = store.Buckets{Offset: p.GetPositive().GetOffset(), Counts: p.GetPositive().GetBucketCounts()}
	row.Negative = store.Buckets{Offset: p.GetNegative().GetOffset(), Counts: p.GetNegative().GetBucketCounts()}
	switch {
	case len(row.Positive.Counts)+len(row.Negative.Counts) > m.Limits.Buckets:
		return TooLarge
	case !adds(row.Count, row.Positive.Counts, row.Negative.Counts, []uint64{row.ZeroCount}):
		return BadBuckets
	}
	row.Exemplars = m.exemplars(p.GetExemplars())
	return ""
}

func (m *metrics) summary(row *store.Point, p *metricsv1.SummaryDataPoint) Reason {
	row.Count, row.Sum = p.GetCount(), p.GetSum()
	if len(p.GetQuantileValues()) > m.Limits.Buckets {
		return TooLarge
	}
	for _, q := range p.GetQuantileValues() {
		if !(q.GetQuantile() >= 0 && q.GetQuantile() <= 1) {
			return BadBuckets
		}
		row.Quantiles = append(row.Quantiles, store.Quantile{Quantile: q.GetQuantile(), Value: q.GetValue()})
	}
	return ""
}

// rising says whether each bound is above the one before; NaN and infinity are no bounds.
func rising(bounds []float64) bool {
	for i, b := range bounds {
		if math.IsNaN(b) || math.IsInf(b, 0) || i > 0 && b <= bounds[i-1] {
			return false
		}
	}
	return true
}

// adds says whether counts add up to total without overflow.
func adds(total uint64, counts ...[]uint64) bool {
	left := total
	for _, list := range counts {
		for _, n := range list {
			if n > left {
				return false
			}
			left -= n
		}
	}
	return left == 0
}

func (m *metrics) exemplars(in []*metricsv1.Exemplar) []store.Exemplar {
	if len(in) > m.Limits.Exemplars {
		m.r.Cut[CutExemplars] += len(in) - m.Limits.Exemplars
		in = in[:m.Limits.Exemplars]
	}
	var out []store.Exemplar
	for _, e := range in {
		at, ok := nano(e.GetTimeUnixNano())
		if !ok {
			at = time.Unix(0, 0).UTC()
		}
		value := e.GetAsDouble()
		if v, ok := e.GetValue().(*metricsv1.Exemplar_AsInt); ok {
			value = float64(v.AsInt)
		}
		traceID, _ := id(e.GetTraceId(), 16)
		spanID, _ := id(e.GetSpanId(), 8)
		out = append(out, store.Exemplar{Time: at, Value: value, TraceID: traceID, SpanID: spanID, Attributes: m.r.attributes(e.GetFilteredAttributes(), m.Limits)})
	}
	return out
}
