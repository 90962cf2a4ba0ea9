package dashboards

import (
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/nodegraph"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// linksSQL is who calls whom in the time that is shown, by the rules of the console's map
// (console.NewServiceMap): an address is a service where its first label is the name of
// one, a record that is received and processed counts once, and its line leads from the
// queue. A part is what it is, its name, and its pool or what runs it. Each pool is a part
// here, since a node of Grafana's has no rows. (Grafana's own service graph lost: it wants
// Tempo, and metrics of a generator beside the spans.)
const linksSQL = `WITH
calls AS (
  SELECT toString(Caller) AS who, toString(CallerPool) AS whoPool, toString(Verb) AS verb, toString(System) AS system, toString(Target) AS whom, toString(TargetPool) AS whomPool,
    sum(Requests) AS n, sum(Errors) AS bad, sumMap(Latency) AS histogram
  FROM traffic_call WHERE Second >= $__fromTime AND Second <= $__toTime
  GROUP BY ALL
),
(SELECT arrayConcat(groupUniqArrayIf(who, who != 'edge'), groupUniqArrayIf(whom, verb IN ('serve', 'command'))) FROM calls) AS services,
(SELECT groupArray((who, whoPool, system, whom)) FROM calls WHERE verb = 'process') AS processed,
links AS (
  SELECT
    if(who = 'edge', ('edge', 'edge', ''), ('service', who, whoPool)) AS caller,
    splitByChar('.', whom)[1] AS label,
    if(whom != '', whom, if(system != '', system, 'unknown')) AS name,
    multiIf(
      verb IN ('serve', 'command'), ('service', name, whomPool),
      verb IN ('publish', 'receive', 'process'), ('queue', name, system),
      verb = 'query', ('database', name, system),
      has(services, whom), ('service', name, ''),
      has(services, label), ('service', label, ''),
      ('outside', name, system)) AS called,
    verb IN ('receive', 'process') AS comes,
    if(comes, called, caller) AS source, if(comes, caller, called) AS target,
    verb, n, bad, histogram
  FROM calls
  WHERE verb != 'receive' OR NOT has(processed, (who, whoPool, system, whom))
  ORDER BY n DESC, source, target LIMIT 60
)
`

// partID is a part's, where a tuple is one.
func partID(tuple string) string {
	return strings.ReplaceAll("concat(X.1, ':', X.2, '/', X.3)", "X", tuple)
}

// p95SQL is in milliseconds; places are expressions of a histogram and of its total.
func p95SQL(histogram, total string) string {
	return strings.NewReplacer("HISTOGRAM", histogram, "TOTAL", total).Replace(
		`mapValues(HISTOGRAM) AS counts, arrayCumSum(counts) AS below, 0.95 * (TOTAL - 1) + 0.5 AS rank, arrayFirstIndex(x -> x >= rank, below) AS at,
  if(at = 0, 0, exp2((mapKeys(HISTOGRAM)[at] + (rank - below[at - 1]) / counts[at]) / 32) / 1e6) AS p95`)
}

const seconds = `greatest(1, dateDiff('second', $__fromTime, $__toTime))`

// NodesSQL and EdgesSQL have the columns that Grafana's node graph asks for. A part has the
// figures of what it is asked, one that nobody asks those of what it asks of others.
var (
	NodesSQL = linksSQL + `SELECT id, title, subtitle, mainstat, secondarystat, arc__good, arc__bad, detail__requests, detail__errors FROM (
SELECT ` + partID("part") + ` AS id, part.2 AS title, if(part.3 = '', part.1, part.3) AS subtitle,
  sumIf(n, asked) > 0 AS whole, if(whole, sumIf(n, asked), sum(n)) AS detail__requests, if(whole, sumIf(bad, asked), sum(bad)) AS detail__errors,
  if(whole, sumMapIf(histogram, asked), sumMap(histogram)) AS latency, ` + p95SQL("latency", "detail__requests") + `,
  round(detail__requests / ` + seconds + `, 4) AS mainstat, round(p95, 2) AS secondarystat, detail__errors / detail__requests AS arc__bad, 1 - arc__bad AS arc__good
FROM (SELECT arrayJoin([(source, false), (target, true)]) AS end, end.1 AS part, end.2 AS asked, n, bad, histogram FROM links)
GROUP BY part) ORDER BY id`
	EdgesSQL = linksSQL + `SELECT id, source_id AS source, target_id AS target, mainstat, secondarystat, thickness, color, detail__how, detail__requests, detail__errors FROM (
SELECT ` + partID("source") + ` AS source_id, ` + partID("target") + ` AS target_id, concat(source_id, ' ', target_id) AS id,
  sum(n) AS detail__requests, sum(bad) AS detail__errors, arrayStringConcat(arraySort(groupUniqArray(verb)), ', ') AS detail__how,
  sumMap(histogram) AS latency, ` + p95SQL("latency", "detail__requests") + `,
  round(detail__requests / ` + seconds + `, 4) AS mainstat, round(p95, 2) AS secondarystat,
  1 + 3 * sqrt(detail__requests / max(detail__requests) OVER ()) AS thickness,
  multiIf(detail__errors = 0, '#8a8a97', detail__errors / detail__requests >= 0.05, '#d9534a', '#dfa02b') AS color
FROM links WHERE source != target
GROUP BY source, target) ORDER BY id`
	callsSQL = linksSQL + `SELECT source.2 AS From, source.3 AS FromPoolOrSystem, verb AS How, target.2 AS To, target.3 AS ToPoolOrSystem,
  round(n / ` + seconds + `, 4) AS PerSecond, round(p95, 1) AS P95Ms, round(100 * bad / n, 2) AS ErrorPercent
FROM (SELECT *, ` + p95SQL("histogram", "n") + ` FROM links) ORDER BY PerSecond DESC, From, To, How`
)

func serviceMap() Board {
	return Board{
		UID: "tracegate-map", Title: "Tracegate: service map", Source: ClickHouse,
		About: "Who calls whom, as on the console, in the time that is shown: the 60 most frequent calls. Groups are not in it: pools are.",
		Rows: []Row{
			{"Who calls whom", []Panel{
				{Kind: Nodes, Title: "Service map", About: "A node has requests a second, P95 and the share of errors of what it is asked; one that nobody asks, of what it asks. A line is red from 5% errors on.",
					Queries: []Query{{Legend: "nodes", Text: NodesSQL}, {Legend: "edges", Text: EdgesSQL}}},
			}},
			{"The same as a table", []Panel{
				{Kind: Table, Title: "Calls", About: "Receive and process lead from the queue to who takes from it.", Queries: []Query{{Text: callsSQL}}},
			}},
		},
	}
}

// nodeGraph draws the frames of two queries; Grafana knows edges by their field source.
func nodeGraph(p Panel) *nodegraph.PanelBuilder {
	arc := func(field, color string) cog.Builder[nodegraph.ArcOption] {
		return nodegraph.NewArcOptionBuilder().Field(field).Color(color)
	}
	return nodegraph.NewPanelBuilder().Title(p.Title).Description(p.About).Height(mapHeight).ZoomMode(nodegraph.ZoomModeCooperative).
		Nodes(nodegraph.NewNodeOptionsBuilder().MainStatUnit(units.RequestsPerSecond).SecondaryStatUnit(units.Milliseconds).
			Arcs([]cog.Builder[nodegraph.ArcOption]{arc("arc__good", "green"), arc("arc__bad", "red")})).
		Edges(nodegraph.NewEdgeOptionsBuilder().MainStatUnit(units.RequestsPerSecond).SecondaryStatUnit(units.Milliseconds)).
		DataLinks([]cog.Builder[dashboard.DashboardLink]{consoleLink("Map on the console", "#/")})
}
