package dashboards

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Link leads from the values of a column to somewhere else.
type Link struct{ Column, Title, URL string }

// clicked is where Grafana writes the value that was clicked.
const clicked = "${__value.raw}"

// consoleVariable is where the console is; a file that is provisioned cannot know.
func consoleVariable() *dashboard.TextBoxVariableBuilder {
	address := "http://127.0.0.1:8090"
	return dashboard.NewTextBoxVariableBuilder("console").Label("Console").Description("its address, for links").DefaultValue(dashboard.StringOrMap{String: &address})
}

func onConsole(page string) string { return "${console:raw}/console/" + page }

func consoleLink(title, page string) *dashboard.DashboardLinkBuilder {
	return dashboard.NewDashboardLinkBuilder(title).Type(dashboard.DashboardLinkTypeLink).Url(onConsole(page)).TargetBlank(true)
}

// groupLinks are those of a column of group ids.
func groupLinks(column string) []Link {
	return []Link{
		{column, "Only this group", "/d/tracegate-groups?${__url_time_range}&var-group=" + clicked},
		{column, "Its requests in Explore", explore(clickhouseQuery(GroupRequestsSQL, Table, "A"))},
		{column, "Its page on the console", onConsole("#/group/" + clicked)},
	}
}

// traceLinks are those of a column of trace ids.
func traceLinks(column string) []Link {
	q := clickhouseQuery(TraceSQL, Table, "A")
	q["queryType"], q["format"] = "traces", 3
	return []Link{
		{column, "The trace in Explore", explore(q)},
		{column, "The trace on the console", onConsole("#/trace/" + clicked)},
	}
}

// GroupRequestsSQL are the newest requests of a group, and TraceSQL a trace as version 4 of
// Grafana's ClickHouse plugin wants its columns; of what was clicked.
const (
	GroupRequestsSQL = `SELECT Timestamp, TraceId, TrafficService AS Service, TrafficPool AS Pool, SpanName, round(Duration / 1e6, 1) AS Ms, StatusCode
FROM otel_traces
WHERE TrafficGroup = '` + clicked + `' AND TrafficEntry AND Timestamp >= $__fromTime AND Timestamp <= $__toTime
ORDER BY Timestamp DESC LIMIT 100`
	TraceSQL = `SELECT TraceId AS traceID, SpanId AS spanID, ParentSpanId AS parentSpanID, ServiceName AS serviceName, SpanName AS operationName,
  multiply(toUnixTimestamp64Nano(Timestamp), 0.000001) AS startTime, multiply(Duration, 0.000001) AS duration,
  arrayMap(key -> map('key', key, 'value', SpanAttributes[key]), mapKeys(SpanAttributes)) AS tags,
  arrayMap(key -> map('key', key, 'value', ResourceAttributes[key]), mapKeys(ResourceAttributes)) AS serviceTags,
  if(StatusCode = 'Error', 2, 0) AS statusCode
FROM otel_traces WHERE traceID = '` + clicked + `' ORDER BY startTime LIMIT 1000`
)

// explore opens a query in Explore, over the time that is shown. All of it is escaped but
// what Grafana replaces.
func explore(query map[string]any) string {
	panes, err := json.Marshal(map[string]any{"tracegate": map[string]any{
		"datasource": string(ClickHouse), "queries": []any{query}, "range": map[string]string{"from": "${__from}", "to": "${__to}"},
	}})
	if err != nil {
		panic(err) // strings and numbers
	}
	escaped := url.QueryEscape(string(panes))
	for _, variable := range []string{clicked, "${__from}", "${__to}"} {
		escaped = strings.ReplaceAll(escaped, url.QueryEscape(variable), variable)
	}
	return "/explore?schemaVersion=1&panes=" + strings.ReplaceAll(escaped, "+", "%20")
}

// linked are the links of each column, as a field's configuration has them.
func linked(links []Link) map[string][]dashboard.DynamicConfigValue {
	out := map[string][]any{}
	for _, l := range links {
		out[l.Column] = append(out[l.Column], map[string]any{"title": l.Title, "url": l.URL, "targetBlank": true})
	}
	values := map[string][]dashboard.DynamicConfigValue{}
	for column, list := range out {
		values[column] = []dashboard.DynamicConfigValue{{Id: "links", Value: list}}
	}
	return values
}

// boardLinks lead to the other dashboards and to the console.
func boardLinks() []cog.Builder[dashboard.DashboardLink] {
	return []cog.Builder[dashboard.DashboardLink]{
		dashboard.NewDashboardLinkBuilder("Tracegate").Type(dashboard.DashboardLinkTypeDashboards).Tags([]string{"tracegate"}).AsDropdown(true).KeepTime(true).IncludeVars(true),
		consoleLink("Console", ""),
	}
}
