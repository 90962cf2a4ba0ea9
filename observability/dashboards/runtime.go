package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

func runtime() Board {
	return Board{
		UID: "tracegate-runtime", Title: "Tracegate: telemetry and processes", Source: Prometheus,
		About: "Whether telemetry adds up, what it takes to keep, and what processes use.",
		Rows: []Row{
			{"Telemetry", []Panel{
				{Graph, "Received and stored", "Received + recovered = stored + spooled + pending + dropped, for each table.", units.Short, []Query{
					{"received {{table}}", rate("tracegate_ingest_received_records_total", "table")}, {"stored {{table}}", rate("tracegate_ingest_stored_records_total", "table")},
				}},
				{Graph, "Dropped, by reason", "", units.Short, []Query{{"{{reason}}", rate("tracegate_ingest_dropped_records_total", "reason")}, {"by a sender: {{reason}}", rate("tracegate_telemetry_dropped_spans_total", "reason")}}},
				{Graph, "Spool", "What waits on disk for ClickHouse.", units.BytesIEC, []Query{{"spool", "sum(tracegate_ingest_spool_bytes)"}}},
			}},
			{"Storage", []Panel{
				{Graph, "Tables", "", units.BytesIEC, []Query{{"{{table}}", "sum by (table) (tracegate_store_table_bytes)"}}},
				{Graph, "Parts", "Many say that merges do not keep up with inserts.", units.Short, []Query{{"{{table}}", "sum by (table) (tracegate_store_table_parts)"}}},
			}},
			{"Processes", []Panel{
				{Graph, "CPU", "Cores.", units.Short, []Query{{"{{job}} {{pool}}", rate("process_cpu_seconds_total", "job, pool")}}},
				{Graph, "Memory", "Resident; Envoy's by its own count.", units.BytesIEC, []Query{{"{{job}} {{pool}}", "sum by (job, pool) (process_resident_memory_bytes)"}, {"envoy", "sum(envoy_server_memory_physical_size)"}}},
				{Graph, "Goroutines", "", units.Short, []Query{{"{{job}} {{pool}}", "sum by (job, pool) (go_goroutines)"}}},
			}},
			{"Pauses", []Panel{
				{Graph, "The world stopped for the garbage collector, P99", "", units.Seconds, []Query{{"{{job}} {{pool}}", quantile(0.99, "go_sched_pauses_total_gc_seconds", "job, pool")}}},
				{Graph, "Goroutines waiting for a thread, P99", "", units.Seconds, []Query{{"{{job}} {{pool}}", quantile(0.99, "go_sched_latencies_seconds", "job, pool")}}},
			}},
		},
	}
}
