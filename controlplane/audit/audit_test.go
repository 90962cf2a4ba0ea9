package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, path string) *Log {
	t.Helper()
	l, torn, err := Open(path, prometheus.NewRegistry())
	if err != nil || torn != 0 {
		t.Fatal(err, torn)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func record(i int, who, by string) ctlapi.AuditRecord {
	return ctlapi.AuditRecord{ID: fmt.Sprint(i), Time: noon.Add(time.Duration(i) * time.Minute), Who: who, By: by}
}

func TestFindsWhatWasKept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := open(t, path)
	for _, r := range []ctlapi.AuditRecord{record(1, "alice", ""), record(2, "operator", "ada"), record(3, "alice", "root")} {
		if err := l.Keep(r); err != nil {
			t.Fatal(err)
		}
	}
	done := record(2, "operator", "ada")
	done.Outcome = ctlapi.OutcomeDone
	if err := l.Keep(done); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and again, from the file
		for what, c := range map[string]struct {
			q    ctlapi.AuditQuery
			want string
		}{
			"all, newest first": {ctlapi.AuditQuery{Limit: 10}, "321"},
			"the newest":        {ctlapi.AuditQuery{Limit: 1}, "3"},
			"of a token":        {ctlapi.AuditQuery{Limit: 10, Who: "alice"}, "31"},
			"of who uses one":   {ctlapi.AuditQuery{Limit: 10, Who: "ada"}, "2"},
			"of nobody":         {ctlapi.AuditQuery{Limit: 10, Who: "al"}, ""},
			"since":             {ctlapi.AuditQuery{Limit: 10, Since: noon.Add(2 * time.Minute)}, "32"},
			"since, of a token": {ctlapi.AuditQuery{Limit: 10, Since: noon.Add(2 * time.Minute), Who: "alice"}, "3"},
		} {
			got := ""
			for _, r := range l.Find(c.q) {
				got += r.ID
			}
			if got != c.want {
				t.Errorf("%s: %s, want %s", what, got, c.want)
			}
		}
		if diff := cmp.Diff([]ctlapi.AuditRecord{done}, l.Find(ctlapi.AuditQuery{Limit: 1, Who: "ada"})); diff != "" {
			t.Errorf("the outcome (-want +got):\n%s", diff)
		}
		l.Close()
		l = open(t, path)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	l := &Log{}
	for i := range 3 * Remembered {
		l.remember(record(i, "alice", ""))
		if len(l.newest) > 2*Remembered {
			t.Fatalf("%d records are remembered", len(l.newest))
		}
	}
	if got := l.Find(ctlapi.AuditQuery{Limit: 4 * Remembered}); len(got) != Remembered || got[0].ID != fmt.Sprint(3*Remembered-1) {
		t.Errorf("%d records, the newest %s", len(got), got[0].ID)
	}
}

// TestRefusedRequestsDoNotFillTheFile: of one name, and others are kept as before.
func TestRefusedRequestsDoNotFillTheFile(t *testing.T) {
	t.Parallel()
	l := open(t, filepath.Join(t.TempDir(), "audit.jsonl"))
	refused := func(id int, who string, at time.Time) {
		t.Helper()
		if err := l.KeepRefused(ctlapi.AuditRecord{ID: fmt.Sprint(id), Time: at, Who: who}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		refused(i, "bob", noon)
	}
	refused(1000, "carl", noon)
	refused(1001, "bob", noon.Add(time.Second))
	refused(1002, "bob", noon.Add(time.Second))
	if got := len(l.Find(ctlapi.AuditQuery{Limit: 2000})); got != refusedBurst+2 {
		t.Errorf("%d records", got)
	}
	if got := testutil.ToFloat64(l.records.WithLabelValues("dropped_refused")); got != 1000-refusedBurst+1 {
		t.Errorf("%v are counted as dropped", got)
	}
}

func TestTornLines(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, []byte(`{"id":"1","who":"alice"}`+"\n"+`{"id":"2","wh`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, torn, err := Open(path, prometheus.NewRegistry())
	if err != nil || torn != 1 {
		t.Fatal(err, torn)
	}
	defer l.Close()
	if err := l.Keep(record(3, "alice", "")); err != nil {
		t.Fatal(err)
	}
	if got := l.Find(ctlapi.AuditQuery{Limit: 10}); len(got) != 2 || got[0].ID != "3" || got[1].ID != "1" {
		t.Errorf("%+v", got)
	}
}
