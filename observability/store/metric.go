package store

import (
	"context"
	"fmt"
	"slices"
	"time"
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
	blocks, ok := s.pointBlocks[kind]
	if !ok {
		return fmt.Errorf("%w: unknown kind of points %q", ErrUnfit, kind)
	}
	b := blocks.take()
	defer blocks.give(b)
	return b.send(ctx, s, "otel_metrics_"+string(kind), token, points)
}

// pointColumns are those of a kind's table, nil where there is no such kind.
func pointColumns(kind PointKind) []column[Point] {
	var own []column[Point]
	switch kind {
	case Gauge:
		own = slices.Concat(numberColumns(), exemplarColumns())
	case Sum:
		own = slices.Concat(numberColumns(), exemplarColumns(), temporalityColumns(),
			[]column[Point]{boolColumn("IsMonotonic", func(p *Point) bool { return p.Monotonic })})
	case Histogram:
		own = slices.Concat(countColumns(), []column[Point]{
			listColumn("BucketCounts", countData(), func(p *Point) []uint64 { return p.Buckets }, itself),
			listColumn("ExplicitBounds", floatData(), func(p *Point) []float64 { return p.Bounds }, itself),
		}, exemplarColumns(), extremeColumns(), temporalityColumns())
	case ExponentialHistogram:
		own = slices.Concat(countColumns(), exponentialColumns(), exemplarColumns(), extremeColumns(), temporalityColumns())
	case Summary:
		quantiles := func(p *Point) []Quantile { return p.Quantiles }
		own = slices.Concat(countColumns(), []column[Point]{
			listColumn("ValueAtQuantiles.Quantile", floatData(), quantiles, func(q Quantile) float64 { return q.Quantile }),
			listColumn("ValueAtQuantiles.Value", floatData(), quantiles, func(q Quantile) float64 { return q.Value }),
			flagsColumn(),
		})
	default:
		return nil
	}
	return slices.Concat(sourceColumns(), own, placeColumns())
}

func sourceColumns() []column[Point] {
	return []column[Point]{
		mapColumn("ResourceAttributes", func(p *Point) map[string]string { return p.Source.Resource }),
		textColumn("ResourceSchemaUrl", func(p *Point) string { return p.Source.ResourceSchema }),
		textColumn("ScopeName", func(p *Point) string { return p.Source.Scope }),
		textColumn("ScopeVersion", func(p *Point) string { return p.Source.ScopeVersion }),
		mapColumn("ScopeAttributes", func(p *Point) map[string]string { return p.Source.ScopeAttributes }),
		uint32Column("ScopeDroppedAttrCount", func(p *Point) uint32 { return p.Source.ScopeDropped }),
		textColumn("ScopeSchemaUrl", func(p *Point) string { return p.Source.ScopeSchema }),
		lowColumn("ServiceName", func(p *Point) string { return p.Source.Service }),
		lowColumn("MetricName", func(p *Point) string { return p.Name }),
		textColumn("MetricDescription", func(p *Point) string { return p.Description }),
		textColumn("MetricUnit", func(p *Point) string { return p.Unit }),
		mapColumn("Attributes", func(p *Point) map[string]string { return p.Attributes }),
		timeColumn("StartTimeUnix", func(p *Point) time.Time { return p.Start }),
		timeColumn("TimeUnix", func(p *Point) time.Time { return p.Time }),
	}
}

func numberColumns() []column[Point] {
	return []column[Point]{floatColumn("Value", func(p *Point) float64 { return p.Value }), flagsColumn()}
}

func flagsColumn() column[Point] {
	return uint32Column("Flags", func(p *Point) uint32 { return p.Flags })
}

func countColumns() []column[Point] {
	return []column[Point]{
		uint64Column("Count", func(p *Point) uint64 { return p.Count }),
		floatColumn("Sum", func(p *Point) float64 { return p.Sum }),
	}
}

func exponentialColumns() []column[Point] {
	return []column[Point]{
		int32Column("Scale", func(p *Point) int32 { return p.Scale }),
		uint64Column("ZeroCount", func(p *Point) uint64 { return p.ZeroCount }),
		int32Column("PositiveOffset", func(p *Point) int32 { return p.Positive.Offset }),
		listColumn("PositiveBucketCounts", countData(), func(p *Point) []uint64 { return p.Positive.Counts }, itself),
		int32Column("NegativeOffset", func(p *Point) int32 { return p.Negative.Offset }),
		listColumn("NegativeBucketCounts", countData(), func(p *Point) []uint64 { return p.Negative.Counts }, itself),
	}
}

func exemplarColumns() []column[Point] {
	exemplars := func(p *Point) []Exemplar { return p.Exemplars }
	return []column[Point]{
		listColumn("Exemplars.FilteredAttributes", newAttributes(), exemplars, func(e Exemplar) map[string]string { return e.Attributes }),
		listColumn("Exemplars.TimeUnix", timeData(), exemplars, func(e Exemplar) time.Time { return e.Time }),
		listColumn("Exemplars.Value", floatData(), exemplars, func(e Exemplar) float64 { return e.Value }),
		listColumn("Exemplars.SpanId", textData(), exemplars, func(e Exemplar) string { return e.SpanID }),
		listColumn("Exemplars.TraceId", textData(), exemplars, func(e Exemplar) string { return e.TraceID }),
	}
}

func extremeColumns() []column[Point] {
	return []column[Point]{
		flagsColumn(),
		floatColumn("Min", func(p *Point) float64 { return p.Min }),
		floatColumn("Max", func(p *Point) float64 { return p.Max }),
	}
}

func temporalityColumns() []column[Point] {
	return []column[Point]{int32Column("AggregationTemporality", func(p *Point) int32 { return p.Temporality })}
}

// placeColumns are the traffic group's.
func placeColumns() []column[Point] {
	return []column[Point]{
		lowColumn("TrafficGroup", func(p *Point) string { return string(p.Traffic.Group) }),
		lowColumn("TrafficColor", func(p *Point) string { return p.Traffic.color() }),
		lowColumn("TrafficEnv", func(p *Point) string { return p.Traffic.Env }),
		lowColumn("TrafficTenant", func(p *Point) string { return p.Traffic.Tenant }),
		lowColumn("TrafficPool", func(p *Point) string { return p.Traffic.Pool }),
	}
}
