package store

// ColumnTypes are the columns of inserts with their types, by table.
func ColumnTypes() map[string][]string {
	out := map[string][]string{"otel_traces": types(spanColumns()), "otel_logs": types(logColumns())}
	for _, k := range PointKinds() {
		out["otel_metrics_"+string(k)] = types(pointColumns(k))
	}
	return out
}

func types[T any](cols []column[T]) []string {
	var out []string
	for _, c := range cols {
		out = append(out, c.name+" "+string(c.data.Type()))
	}
	return out
}
