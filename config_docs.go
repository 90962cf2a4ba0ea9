package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"
)

// printConfig writes a configuration as YAML with every key documented, as
// `tracegate config` shows it and tracegate.example.yaml holds it.
func printConfig(w io.Writer, cfg Config) {
	fmt.Fprintln(w, "# Tracegate configuration. Every key is optional; what stands here is the default.")
	fmt.Fprintln(w, "# A key can also be set by environment: edge.listen is TRACEGATE_EDGE_LISTEN.")
	printFields(w, reflect.ValueOf(cfg), "")
}

func printFields(w io.Writer, v reflect.Value, indent string) {
	for f := range structFields(v.Type()) {
		name, doc, value := f.Tag.Get("mapstructure"), f.Tag.Get("doc"), v.FieldByIndex(f.Index)
		if value.Kind() == reflect.Struct {
			fmt.Fprintf(w, "\n%s%s:\n", indent, name)
			printFields(w, value, indent+"  ")
			continue
		}
		fmt.Fprintf(w, "%s# %s\n%s%s:%s\n", indent, doc, indent, name, yamlValue(value, indent))
	}
}

func yamlValue(v reflect.Value, indent string) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return " " + d.String()
	}
	switch v.Kind() {
	case reflect.String:
		if s := v.String(); s == "" || strings.Contains(s, " ") || strings.HasPrefix(s, "{") {
			return fmt.Sprintf(" %q", s)
		}
		return " " + v.String()
	case reflect.Slice:
		if v.Len() == 0 {
			return " []"
		}
		var b strings.Builder
		for i := range v.Len() {
			b.WriteString("\n" + indent + "  - " + yamlItem(v.Index(i)))
		}
		return b.String()
	default:
		return fmt.Sprintf(" %v", v.Interface())
	}
}

// yamlItem writes one element of a list: a scalar, or a struct in flow style.
func yamlItem(v reflect.Value) string {
	if v.Kind() != reflect.Struct {
		return fmt.Sprint(v.Interface())
	}
	var fields []string
	for f := range structFields(v.Type()) {
		fields = append(fields, f.Tag.Get("mapstructure")+": "+strings.TrimSpace(yamlValue(v.FieldByIndex(f.Index), "")))
	}
	return "{" + strings.Join(fields, ", ") + "}"
}
