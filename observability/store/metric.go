package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/column/orderedmap"
)

// PointKind is what a point's metric is; each kind has its table.
type PointKind string

// Kinds of points.
const (
	Gauge                PointKind = "gauge"
	Sum                  PointKind = "sum"
	Histogram            PointKind = "histogram"
	ExponentialHistogram PointKind = "exponential_histogram"
	Summary              PointKind = "summary"
)

// PointKinds are all of them.
func PointKinds() []PointKind {
	return []PointKind{Gauge, Sum, Histogram, ExponentialHistogram, Summary}
}

// Point is one row of otel_metrics_<kind>. What its kind does not have is zero.
type Point struct {
	Kind   PointKind
	Source MetricSource

	Name        string
	Description string
	Unit        string
	Attributes  map[string]string
	Start       time.Time // when it began to count; 1970 where its sender does not say
	Time        time.Time
	Flags       uint32 // OTLP's; 1 is "no recorded value"
	Exemplars   []Exemplar
	Traffic     Traffic // Service, Route and Entry have no column; without a Group the Color has no meaning

	Value       float64 // gauge, sum
	Temporality int32   // OTLP's: 1 delta, 2 cumulative
	Monotonic   bool    // sum

	Count    uint64 // histograms, summary, as Sum
	Sum      float64
	Min, Max float64 // histograms; zero where the sender has none
	// Bounds are the upper bounds of all Buckets but the last of a histogram.
	Bounds  []float64
	Buckets []uint64
	// Scale and the following are an exponential histogram's.
	Scale              int32
	ZeroCount          uint64
	Positive, Negative Buckets
	Quantiles          []Quantile // summary
}

// MetricSource is who sent a point; points share its maps, which nobody changes.
type MetricSource struct {
	Service         string
	Resource        map[string]string
	ResourceSchema  string
	Scope           string
	ScopeVersion    string
	ScopeAttributes map[string]string
	ScopeDropped    uint32 // attributes that the sender left out
	ScopeSchema     string
}

// Exemplar is a measurement within a point, with the span it was made in.
type Exemplar struct {
	Time            time.Time
	Value           float64
	TraceID, SpanID string // empty where there is none
	Attributes      map[string]string
}

// Buckets are one side of an exponential histogram; Counts[i] is bucket Offset+i.
type Buckets struct {
	Offset int32
	Counts []uint64
}

// Quantile is a share, 0 to 1, and the value it lies at.
type Quantile struct{ Quantile, Value float64 }

// InsertPoints writes one batch of points, all of one kind because each kind has its
// table; a mixture is ErrUnfit. It promises what InsertSpans does.
func (s *Store) InsertPoints(ctx context.Context, token string, points []Point) error {
	if len(points) == 0 {
		return nil
	}
	kind := points[0].Kind
	for i := range points {
		if points[i].Kind != kind {
			return fmt.Errorf("%w: points of kinds %q and %q in one batch", ErrUnfit, kind, points[i].Kind)
		}
	}
	cols := pointColumns(kind)
	if cols == nil {
		return fmt.Errorf("%w: unknown kind of points %q", ErrUnfit, kind)
	}
	return insert(ctx, s, "otel_metrics_"+string(kind), token, cols, points)
}

// pointColumns are those of a kind's table, nil where there is no such kind.
func pointColumns(kind PointKind) []column[Point] {
	var own []column[Point]
	switch kind {
	case Gauge:
		own = slices.Concat(numberColumns(), exemplarColumns())
	case Sum:
		own = slices.Concat(numberColumns(), exemplarColumns(), temporalityColumns(),
			[]column[Point]{{"IsMonotonic", "Bool", func(p *Point) any { return p.Monotonic }}})
	case Histogram:
		own = slices.Concat(countColumns(), []column[Point]{
			{"BucketCounts", counts, func(p *Point) any { return p.Buckets }},
			{"ExplicitBounds", floats, func(p *Point) any { return p.Bounds }},
		}, exemplarColumns(), extremeColumns(), temporalityColumns())
	case ExponentialHistogram:
		own = slices.Concat(countColumns(), exponentialColumns(), exemplarColumns(), extremeColumns(), temporalityColumns())
	case Summary:
		own = slices.Concat(countColumns(), []column[Point]{
			{"ValueAtQuantiles.Quantile", floats, func(p *Point) any { return each(p.Quantiles, func(q Quantile) float64 { return q.Quantile }) }},
			{"ValueAtQuantiles.Value", floats, func(p *Point) any { return each(p.Quantiles, func(q Quantile) float64 { return q.Value }) }},
			flagsColumn(),
		})
	default:
		return nil
	}
	return slices.Concat(sourceColumns(), own, placeColumns())
}

const (
	counts = "Array(UInt64)"
	floats = "Array(Float64)"
)

func sourceColumns() []column[Point] {
	return []column[Point]{
		{"ResourceAttributes", attributes, func(p *Point) any { return orderedmap.FromMap(p.Source.Resource) }},
		{"ResourceSchemaUrl", text, func(p *Point) any { return p.Source.ResourceSchema }},
		{"ScopeName", text, func(p *Point) any { return p.Source.Scope }},
		{"ScopeVersion", text, func(p *Point) any { return p.Source.ScopeVersion }},
		{"ScopeAttributes", attributes, func(p *Point) any { return orderedmap.FromMap(p.Source.ScopeAttributes) }},
		{"ScopeDroppedAttrCount", "UInt32", func(p *Point) any { return p.Source.ScopeDropped }},
		{"ScopeSchemaUrl", text, func(p *Point) any { return p.Source.ScopeSchema }},
		{"ServiceName", low, func(p *Point) any { return p.Source.Service }},
		{"MetricName", low, func(p *Point) any { return p.Name }},
		{"MetricDescription", text, func(p *Point) any { return p.Description }},
		{"MetricUnit", text, func(p *Point) any { return p.Unit }},
		{"Attributes", attributes, func(p *Point) any { return orderedmap.FromMap(p.Attributes) }},
		{"StartTimeUnix", nanotime, func(p *Point) any { return p.Start }},
		{"TimeUnix", nanotime, func(p *Point) any { return p.Time }},
	}
}

func numberColumns() []column[Point] {
	return []column[Point]{{"Value", "Float64", func(p *Point) any { return p.Value }}, flagsColumn()}
}

func flagsColumn() column[Point] {
	return column[Point]{"Flags", "UInt32", func(p *Point) any { return p.Flags }}
}

func countColumns() []column[Point] {
	return []column[Point]{
		{"Count", "UInt64", func(p *Point) any { return p.Count }},
		{"Sum", "Float64", func(p *Point) any { return p.Sum }},
	}
}

func exponentialColumns() []column[Point] {
	return []column[Point]{
		{"Scale", "Int32", func(p *Point) any { return p.Scale }},
		{"ZeroCount", "UInt64", func(p *Point) any { return p.ZeroCount }},
		{"PositiveOffset", "Int32", func(p *Point) any { return p.Positive.Offset }},
		{"PositiveBucketCounts", counts, func(p *Point) any { return p.Positive.Counts }},
		{"NegativeOffset", "Int32", func(p *Point) any { return p.Negative.Offset }},
		{"NegativeBucketCounts", counts, func(p *Point) any { return p.Negative.Counts }},
	}
}

func exemplarColumns() []column[Point] {
	return []column[Point]{
		{"Exemplars.FilteredAttributes", "Array(" + attributes + ")", func(p *Point) any {
			return each(p.Exemplars, func(e Exemplar) map[string]string { return e.Attributes })
		}},
		{"Exemplars.TimeUnix", "Array(" + nanotime + ")", func(p *Point) any { return each(p.Exemplars, func(e Exemplar) time.Time { return e.Time }) }},
		{"Exemplars.Value", floats, func(p *Point) any { return each(p.Exemplars, func(e Exemplar) float64 { return e.Value }) }},
		{"Exemplars.SpanId", "Array(String)", func(p *Point) any { return each(p.Exemplars, func(e Exemplar) string { return e.SpanID }) }},
		{"Exemplars.TraceId", "Array(String)", func(p *Point) any { return each(p.Exemplars, func(e Exemplar) string { return e.TraceID }) }},
	}
}

func extremeColumns() []column[Point] {
	return []column[Point]{
		flagsColumn(),
		{"Min", "Float64", func(p *Point) any { return p.Min }},
		{"Max", "Float64", func(p *Point) any { return p.Max }},
	}
}

func temporalityColumns() []column[Point] {
	return []column[Point]{{"AggregationTemporality", "Int32", func(p *Point) any { return p.Temporality }}}
}

// placeColumns are the traffic group's.
func placeColumns() []column[Point] {
	return []column[Point]{
		{"TrafficGroup", low, func(p *Point) any { return string(p.Traffic.Group) }},
		{"TrafficColor", low, func(p *Point) any {
			if p.Traffic.Group == "" {
				return ""
			}
			return p.Traffic.Color.String()
		}},
		{"TrafficEnv", low, func(p *Point) any { return p.Traffic.Env }},
		{"TrafficTenant", low, func(p *Point) any { return p.Traffic.Tenant }},
		{"TrafficPool", low, func(p *Point) any { return p.Traffic.Pool }},
	}
}
