// Package dashboards is Tracegate's Grafana dashboards as code: what each shows is a value
// here, and Render makes of it what Grafana reads. `go generate` writes the JSON files
// beside the provisioning folder (README.md says how Grafana gets them).
//
// Groups and decisions are asked of ClickHouse, where they are by the second and keep
// their decisions; what processes say of themselves is asked of Prometheus. Dashboards
// drawn by hand and exported lost: nobody can review their JSON, and nothing says when a
// table or metric that they name is gone. Here tests do: every query runs on the migrated
// tables, every expression is checked by promtool, and every metric is one that the
// running product serves.
package dashboards

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

//go:generate go run ./generate

// Board is a dashboard.
type Board struct {
	UID, Title, About string
	Source            Source // of all its panels
	Rows              []Row
}

// Queries are those of all panels.
func (b Board) Queries() iter.Seq2[Panel, Query] {
	return func(yield func(Panel, Query) bool) {
		for _, r := range b.Rows {
			for _, p := range r.Panels {
				for _, q := range p.Queries {
					if !yield(p, q) {
						return
					}
				}
			}
		}
	}
}

// ofGroups says whether a board asks for those groups that are chosen.
func (b Board) ofGroups() bool {
	for _, q := range b.Queries() {
		if strings.Contains(q.Text, chosen) {
			return true
		}
	}
	return false
}

// Row is a heading and what stands below it, side by side.
type Row struct {
	Title  string
	Panels []Panel
}

// Panel is one picture.
type Panel struct {
	Kind         Kind
	Title, About string
	Unit         string // of Grafana's list
	Queries      []Query
	Links        []Link // of a table's columns
}

// Query is a line, or the lines that it gives. Names of lines from Prometheus are in
// Legend; those from ClickHouse are what the query's text columns say.
type Query struct{ Legend, Text string }

// Kind is how a panel shows its numbers.
type Kind int

const (
	Graph Kind = iota
	Number
	Table
	Nodes // and the lines between them
)

// Source is where a board's numbers come from, by its uid in the provisioning folder.
type Source string

const (
	ClickHouse Source = "tracegate-clickhouse"
	Prometheus Source = "tracegate-prometheus"
)

func (s Source) ref() common.DataSourceRef {
	kind := "prometheus"
	if s == ClickHouse {
		kind = "grafana-clickhouse-datasource"
	}
	uid := string(s)
	return common.DataSourceRef{Type: &kind, Uid: &uid}
}

const (
	width       = 24 // of the grid
	graphHeight = 8
	mapHeight   = 16
	statHeight  = 4
)

// All are the dashboards, as a reader goes through them: from users to the machine.
func All() []Board { return []Board{groups(), serviceMap(), edge(), messaging(), runtime()} }

// Render makes a board what Grafana reads.
func Render(b Board) (dashboard.Dashboard, error) {
	d := dashboard.NewDashboardBuilder(b.Title).Uid(b.UID).Description(b.About).Tags([]string{"tracegate"}).
		Readonly().Refresh("5s").Time("now-15m", "now").Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Links(boardLinks()).WithVariable(consoleVariable())
	if b.ofGroups() {
		d.WithVariable(groupVariable()).Annotation(decisionMarks())
	}
	id := uint32(0)
	for _, r := range b.Rows {
		id++
		d.WithRow(dashboard.NewRowBuilder(r.Title).Id(id))
		for _, p := range r.Panels {
			panel, err := render(p, b.Source, uint32(width/len(r.Panels)))
			if err != nil {
				return dashboard.Dashboard{}, fmt.Errorf("panel %q: %w", p.Title, err)
			}
			id++
			panel.Id = new(id)
			d.WithPanel(panel)
		}
	}
	return d.Build()
}

// built is a panel where a builder is asked for.
type built dashboard.Panel

// Build implements cog.Builder.
func (b built) Build() (dashboard.Panel, error) { return dashboard.Panel(b), nil }

func render(p Panel, s Source, span uint32) (built, error) {
	var targets []cog.Builder[variants.Dataquery]
	for i, q := range p.Queries {
		targets = append(targets, target(q, s, p.Kind, string(rune('A'+i))))
	}
	var b cog.Builder[dashboard.Panel]
	switch p.Kind {
	case Number:
		b = stat.NewPanelBuilder().Title(p.Title).Description(p.About).Unit(p.Unit).Datasource(s.ref()).Targets(targets).
			Span(span).Height(statHeight).ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"}))
	case Table:
		t := table.NewPanelBuilder().Title(p.Title).Description(p.About).Datasource(s.ref()).Targets(targets).Span(span).Height(graphHeight).
			Footer(common.NewTableFooterOptionsBuilder().Show(false).Reducer([]string{})) // the schema asks for one
		links := linked(p.Links)
		for _, column := range slices.Sorted(maps.Keys(links)) {
			t.OverrideByName(column, links[column])
		}
		b = t
	case Nodes:
		b = nodeGraph(p).Datasource(s.ref()).Targets(targets).Span(span)
	default:
		b = timeseries.NewPanelBuilder().Title(p.Title).Description(p.About).Unit(p.Unit).Datasource(s.ref()).Targets(targets).
			Span(span).Height(graphHeight).Min(0).FillOpacity(8).ShowPoints(common.VisibilityModeNever).
			Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
	}
	out, err := b.Build()
	return built(out), err
}

func target(q Query, s Source, k Kind, ref string) cog.Builder[variants.Dataquery] {
	if s == Prometheus {
		b := prometheus.NewDataqueryBuilder().RefId(ref).Expr(q.Text).LegendFormat(q.Legend).Datasource(s.ref())
		if k != Graph {
			return b.Instant()
		}
		return b.Range()
	}
	return variants.NewUnknownDataqueryBuilderFromObject(clickhouseQuery(q.Text, k, ref))
}

// clickhouseQuery is a query as version 4 of Grafana's ClickHouse plugin saves it; the SDK
// knows no type for it.
func clickhouseQuery(text string, k Kind, ref string) variants.UnknownDataquery {
	format, kind := 1, "table"
	if k == Graph {
		format, kind = 0, "timeseries"
	}
	return variants.UnknownDataquery{
		"refId": ref, "datasource": ClickHouse.ref(), "editorType": "sql", "queryType": kind, "format": format, "rawSql": text,
		"pluginVersion": "4.0.0",
	}
}

// GroupsSQL lists groups with what they are made of.
const GroupsSQL = `SELECT DISTINCT concat(TrafficGroup, ' (', TrafficColor, ' ', TrafficEnv, '+', TrafficTenant, ')') AS __text, TrafficGroup AS __value
FROM traffic_group WHERE Grain = 60 AND Second > now() - INTERVAL 1 DAY ORDER BY __text`

// groupVariable lets one look at some groups; those that are chosen come as an expression.
func groupVariable() *dashboard.QueryVariableBuilder {
	text := GroupsSQL
	return dashboard.NewQueryVariableBuilder("group").Label("Group").Datasource(ClickHouse.ref()).
		Query(dashboard.StringOrMap{String: &text}).Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Multi(true).IncludeAll(true).AllValue(".*")
}

// MarksSQL are decisions as marks in all graphs.
const MarksSQL = `SELECT Time AS time, concat(Action, ' ', TrafficGroup, ': ', Reason) AS text, By AS tags
FROM traffic_decisions FINAL WHERE Time >= $__fromTime AND Time <= $__toTime AND ` + chosen

func decisionMarks() *dashboard.AnnotationQueryBuilder {
	return dashboard.NewAnnotationQueryBuilder().Name("decisions").Datasource(ClickHouse.ref()).Enable(true).IconColor("orange").
		Target(variants.NewUnknownDataqueryBuilderFromObject(clickhouseQuery(MarksSQL, Table, "Anno")))
}

// quantile is that of a histogram that is kept by labels.
func quantile(q float64, metric, by string) string {
	if by != "" {
		by = ", " + by
	}
	return fmt.Sprintf("histogram_quantile(%s, sum by (le%s) (rate(%s_bucket[$__rate_interval])))", strconv.FormatFloat(q, 'g', -1, 64), by, metric)
}

// rate sums how often something happens a second.
func rate(metric, by string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s[$__rate_interval]))", by, metric)
}
