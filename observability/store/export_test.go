package store

// ColumnTypes are the columns of an insert with their types.
func ColumnTypes() []string {
	var out []string
	for _, c := range columns() {
		out = append(out, c.name+" "+c.typ)
	}
	return out
}
