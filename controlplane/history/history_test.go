package history_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/history"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string) (*history.Log, []error) {
	t.Helper()
	l, damaged, err := history.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return l, damaged
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRolledBack(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	must(t, l.Add([]byte("good"), noon))
	must(t, l.InForce([]byte("good"), noon, ""))
	must(t, l.Add([]byte("bad"), noon))
	must(t, l.InForce([]byte("bad"), noon, ""))
	must(t, l.RolledBack([]byte("bad"), 1, "slow"))
	must(t, l.InForce([]byte("good"), noon, ""))
	for _, l := range []*history.Log{l, func() *history.Log { l, _ := open(t, dir); return l }()} {
		r, back := l.WasRolledBack([]byte("bad"))
		if !back || r.Number != 2 || r.BackTo != 1 || r.Why != "slow" {
			t.Errorf("taken back: %v, %+v", back, r)
		}
		if _, back := l.WasRolledBack([]byte("good")); back {
			t.Error("what is in force was taken back")
		}
		if n := l.Number([]byte("good")); n != 1 {
			t.Errorf("good is revision %d", n)
		}
	}
	l.Suggest([]byte("bad"), "etcd:ann", "found again after a restart")
	if _, back := l.WasRolledBack([]byte("bad")); !back {
		t.Error("a document that was only found again is not taken back any more")
	}
	l.Announce([]byte("bad"), "operator:ann", "again")
	if _, back := l.WasRolledBack([]byte("bad")); back {
		t.Error("whoever brings it once more does not get it")
	}
	must(t, l.Add([]byte("bad"), noon))
	if r := l.List()[0]; r.Number != 3 || r.By != "operator:ann" || r.State != ctlapi.RevisionPending {
		t.Errorf("once more: %+v", r)
	}
	if n := l.Number([]byte("never seen")); n != 0 {
		t.Errorf("what was never seen is revision %d", n)
	}
}

func TestRevisions(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	must(t, l.Add([]byte("one"), noon))
	must(t, l.Add([]byte("one"), noon)) // again
	must(t, l.InForce([]byte("one"), noon, ""))
	l.Announce([]byte("never comes"), "operator:bob", "lost")
	must(t, l.Add([]byte("two"), noon))
	l.Announce([]byte("three"), "operator:ann", "why not")
	must(t, l.Add([]byte("three"), noon))
	must(t, l.InForce([]byte("three"), noon.Add(time.Second), ""))
	must(t, l.Add([]byte("four"), noon))
	must(t, l.Refused([]byte("four"), "no"))
	must(t, l.Refused([]byte("never seen"), "no"))
	must(t, l.Add([]byte("one"), noon)) // back to it: a revision of its own
	check := func(l *history.Log) {
		t.Helper()
		got := ""
		for _, r := range l.List() {
			got += fmt.Sprintln(r.Number, r.By, r.State, r.Reason+r.Why)
		}
		want := "5 file pending \n4 file refused no\n3 operator:ann in_force why not\n2 file superseded \n1 file superseded \n"
		if got != want {
			t.Errorf("revisions:\n%swant\n%s", got, want)
		}
	}
	check(l)
	l, damaged := open(t, dir)
	if len(damaged) > 0 {
		t.Error(damaged)
	}
	check(l)
	must(t, l.Add([]byte("one"), noon)) // the newest again, after a restart
	check(l)
	if d, err := l.Document(3); err != nil || string(d) != "three" {
		t.Errorf("document %q, %v", d, err)
	}
	if _, err := l.Document(6); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("document that is not there: %v", err)
	}
}

func TestDamagedRevisionIsLostAlone(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	for i := range 3 {
		must(t, l.Add(fmt.Append(nil, i), noon))
	}
	must(t, os.WriteFile(filepath.Join(dir, "00000002.json"), []byte("{"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "notes.json"), []byte("{"), 0o600))
	l, damaged := open(t, dir)
	if len(damaged) != 1 || len(l.List()) != 2 {
		t.Errorf("%v, %+v", damaged, l.List())
	}
}

func TestOldRevisionsGo(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	must(t, l.Add([]byte("kept"), noon))
	must(t, l.InForce([]byte("kept"), noon, ""))
	for i := range history.Keep + 10 {
		must(t, l.Add(fmt.Append(nil, i), noon))
	}
	all := l.List()
	if last := all[len(all)-1]; len(all) != history.Keep || last.State != ctlapi.RevisionInForce || all[0].Number != history.Keep+11 {
		t.Errorf("%d revisions, the oldest is %+v", len(all), last)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*.json")); err != nil || len(files) != history.Keep {
		t.Errorf("%d files, %v", len(files), err)
	}
}

// TestInvalidDocuments are kept, one of a row, and never push out what was in force.
func TestInvalidDocuments(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	must(t, l.Add([]byte("good"), noon))
	must(t, l.InForce([]byte("good"), noon, "a rule"))
	must(t, l.Invalid([]byte("bad"), noon, "policy.yaml:1: bad"))
	must(t, l.Invalid([]byte("worse"), noon, "policy.yaml:2: worse"))
	must(t, l.Add([]byte("good"), noon)) // back to what it was
	l, _ = open(t, dir)
	all := l.List()
	if len(all) != 3 || all[0].State != ctlapi.RevisionPending || all[1].State != ctlapi.RevisionInvalid || all[1].Why != "policy.yaml:2: worse" ||
		all[2].State != ctlapi.RevisionPartly || all[2].Why != "a rule" {
		t.Fatalf("%+v", all)
	}
	if d, err := l.Document(2); err != nil || string(d) != "worse" {
		t.Errorf("document %q, %v", d, err)
	}
	for i := range 3 * history.Keep {
		if i%2 == 0 {
			must(t, l.Invalid(fmt.Append(nil, i), noon, "no"))
			continue
		}
		must(t, l.Add(fmt.Append(nil, i), noon))
		if i < 20 {
			must(t, l.InForce(fmt.Append(nil, i), noon.Add(time.Duration(i)), ""))
		} else {
			must(t, l.Refused(fmt.Append(nil, i), "no"))
		}
	}
	superseded := 0
	for _, r := range l.List() {
		if !r.Since.IsZero() {
			superseded++
		}
	}
	if superseded < 10 || len(l.List()) != history.Keep {
		t.Errorf("%d revisions, %d were in force", len(l.List()), superseded)
	}
}
