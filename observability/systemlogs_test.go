package observability

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/observability/store"
)

// TestSystemLogsAreToldOnce: each state of what grows for ever is one line, and what to do is
// in it.
func TestSystemLogsAreToldOnce(t *testing.T) {
	query, trace := store.SystemLog{Name: "query_log", Bytes: 40}, store.SystemLog{Name: "trace_log", Bytes: 2}
	type seen struct {
		bounded, endless []store.SystemLog
		err              error
	}
	refused := errors.New("not enough privileges")
	for _, tt := range []struct {
		name  string
		looks []seen
		want  []string // parts of lines
	}{
		{"nothing there", []seen{{}, {}}, nil},
		{"left alone", []seen{{endless: []store.SystemLog{query}}, {endless: []store.SystemLog{query}}}, []string{"level=WARN tables=[system.query_log] bytes=40 config.d system_log_days"}},
		{"one more", []seen{{endless: []store.SystemLog{query}}, {endless: []store.SystemLog{query, trace}}},
			[]string{"level=WARN tables=[system.query_log]", `level=WARN tables="[system.query_log system.trace_log]" bytes=42`}},
		{"no right", []seen{{endless: []store.SystemLog{query}, err: refused}, {endless: []store.SystemLog{query}, err: refused}}, []string{`level=WARN error="not enough privileges"`}},
		{"bounded", []seen{{bounded: []store.SystemLog{query}}, {}}, []string{"level=INFO tables=[system.query_log] days=7"}},
		{"away in between", []seen{{endless: []store.SystemLog{query}}, {err: errors.New("away")}, {endless: []store.SystemLog{query}}}, []string{"level=WARN"}},
		{"gone and there again", []seen{{endless: []store.SystemLog{query}}, {}, {endless: []store.SystemLog{query}}}, []string{"level=WARN", "level=WARN"}},
	} {
		var log bytes.Buffer
		looks := tt.looks
		l := &systemLogs{days: 7, log: slog.New(slog.NewTextHandler(&log, nil)), bound: func(_ context.Context, days int) (bounded, endless []store.SystemLog, err error) {
			now := looks[0]
			looks = looks[1:]
			return now.bounded, now.endless, now.err
		}}
		for range tt.looks {
			l.look(t.Context())
		}
		lines := strings.FieldsFunc(log.String(), func(r rune) bool { return r == '\n' })
		if len(lines) != len(tt.want) {
			t.Errorf("%s: %d lines, want %d:\n%s", tt.name, len(lines), len(tt.want), log.String())
			continue
		}
		for i, want := range tt.want {
			for _, part := range strings.SplitAfter(want, " ") {
				if !strings.Contains(lines[i], strings.TrimSpace(part)) {
					t.Errorf("%s: line has no %s: %s", tt.name, part, lines[i])
				}
			}
		}
	}
}
