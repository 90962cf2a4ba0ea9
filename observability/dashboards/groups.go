package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

// chosen are the groups of the variable.
const chosen = `match(TrafficGroup, '^(${group:pipe})$')`

// series asks for a value of each group and pool over time.
func series(value string) []Query {
	return []Query{{Text: `SELECT Start AS time, concat(TrafficEnv, '+', TrafficTenant, ' ', TrafficService, '/', TrafficPool) AS series, ` + value + ` AS value
FROM traffic_group_stats(step = toUInt32($__interval_s), from = $__fromTime, to = $__toTime)
WHERE ` + chosen + `
ORDER BY time, series`}}
}

func groups() Board {
	return Board{
		UID: "tracegate-groups", Title: "Tracegate: traffic groups", Source: ClickHouse,
		About: "What the users of each traffic group experience, by the second, and what was decided about it.",
		Rows: []Row{
			{"What users experience", []Panel{
				{Kind: Graph, Title: "Requests", Unit: units.RequestsPerSecond, Queries: series("Requests / $__interval_s")},
				{Kind: Graph, Title: "P95", About: "Of an exponential histogram whose buckets are 2.2% wide.", Unit: units.Seconds, Queries: series("P95")},
				{Kind: Graph, Title: "Errors", Unit: units.PercentUnit, Queries: series("Errors / Requests")},
			}},
			{"Groups", []Panel{
				{Kind: Table, Title: "Groups by pool", About: "In the time that is shown. A group's id leads to its requests and to its page on the console.", Links: groupLinks("TrafficGroup"), Queries: []Query{{Text: `SELECT TrafficGroup, TrafficEnv AS Env, TrafficTenant AS Tenant, TrafficColor AS Color, TrafficService AS Service, TrafficPool AS Pool,
  round(Requests / ` + seconds + `, 2) AS PerSecond, round(P50 * 1e3, 1) AS P50Ms, round(P95 * 1e3, 1) AS P95Ms, round(P99 * 1e3, 1) AS P99Ms, round(100 * Errors / Requests, 2) AS ErrorPercent
FROM traffic_group_stats(step = toUInt32(4000000000), from = $__fromTime, to = $__toTime)
WHERE ` + chosen + `
ORDER BY Requests DESC LIMIT 100`}}},
			}},
			{"Decisions", []Panel{
				{Kind: Table, Title: "What was decided", About: "The newest first. Record has the inputs, thresholds and causes.", Links: groupLinks("TrafficGroup"), Queries: []Query{{Text: `SELECT Time, Action, TrafficGroup, concat(TrafficEnv, '+', TrafficTenant) AS Of, Service, FromPool, ToPool, By, Reason,
  if(Programmed > Time, dateDiff('millisecond', Time, Programmed), NULL) AS ProgrammedMs
FROM traffic_decisions FINAL
WHERE Time >= $__fromTime AND Time <= $__toTime AND ` + chosen + `
ORDER BY Time DESC LIMIT 100`}}},
			}},
			{"Where it comes from", []Panel{
				{Kind: Table, Title: "Slowest routes", Queries: []Query{{Text: `SELECT TrafficRoute AS Route, TrafficPool AS Pool, count() AS Requests, countIf(StatusCode = 'Error') AS Errors,
  round(quantileTDigest(0.95)(Duration) / 1e6, 1) AS P95Ms
FROM otel_traces
WHERE TrafficEntry AND Timestamp >= $__fromTime AND Timestamp <= $__toTime AND ` + chosen + `
GROUP BY Route, Pool ORDER BY P95Ms DESC LIMIT 20`}}},
				{Kind: Table, Title: "Slowest requests", About: "tracegate ctl traces show TRACE draws one.", Links: append(groupLinks("TrafficGroup"), traceLinks("TraceId")...), Queries: []Query{{Text: `SELECT Timestamp, TraceId, TrafficGroup, TrafficPool, SpanName, round(Duration / 1e6, 1) AS Ms, StatusCode
FROM otel_traces
WHERE TrafficEntry AND Timestamp >= $__fromTime AND Timestamp <= $__toTime AND ` + chosen + `
ORDER BY Duration DESC LIMIT 20`}}},
			}},
			{"What the kernel saw", []Panel{
				{Kind: Table, Title: "Connects, waits and pauses", About: "Of pools, as the kernel probes time them; groups of a shared pool share them.", Queries: []Query{{Text: `SELECT Service, Pool, Kind, Target, Events, round(P50 * 1e3, 2) AS P50Ms, round(P95 * 1e3, 2) AS P95Ms, round(P99 * 1e3, 2) AS P99Ms
FROM traffic_kernel_duration(from = toDateTime64($__fromTime, 9), to = toDateTime64($__toTime, 9))
ORDER BY P95Ms DESC LIMIT 20`}}},
			}},
		},
	}
}
