package spool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func open(t *testing.T, dir string, maxBytes int64) *Spool {
	t.Helper()
	s, err := Open(dir, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// drain takes everything.
func drain(t *testing.T, s *Spool) []Batch {
	t.Helper()
	var out []Batch
	for {
		b, ok, err := s.Oldest()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return out
		}
		out = append(out, b)
		if err := s.Remove(b); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBatchesComeBackInOrderAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<20)
	want := []Batch{{Token: "a", Rows: 1, Payload: []byte("one")}, {Token: "b", Rows: 2, Payload: []byte{}}, {Token: "", Rows: 3, Payload: bytes.Repeat([]byte{0}, 5000)}}
	for _, b := range want {
		if err := s.Append(b.Token, b.Rows, b.Payload, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "0000000000000009.batch.tmp"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "README"), []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, 1<<20)
	if got, want := again.Usage(), s.Usage(); got != want || got.Rows != 6 || got.Batches != 3 {
		t.Errorf("usage = %+v, want %+v", got, want)
	}
	if err := again.Append("later", 4, nil, 1<<20); err != nil {
		t.Fatal(err)
	}
	want = append(want, Batch{Token: "later", Rows: 4, Payload: []byte{}})
	if diff := cmp.Diff(want, drain(t, again), cmpopts.IgnoreUnexported(Batch{})); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
	if got := again.Usage(); got != (Usage{}) {
		t.Errorf("usage = %+v, want nothing", got)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "README" {
		t.Errorf("left in folder: %v, %v", left, err)
	}
}

func TestFullSpoolRefusesTheNewest(t *testing.T) {
	s := open(t, t.TempDir(), 200)
	if err := s.Append("a", 1, make([]byte, 100), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := s.Append("b", 1, make([]byte, 100), 1<<20); !errors.Is(err, ErrFull) {
		t.Fatalf("error = %v, want ErrFull", err)
	}
	if err := s.Append("c", 1, nil, 100); !errors.Is(err, ErrFull) {
		t.Fatalf("with less room than is taken: error = %v, want ErrFull", err)
	}
	var tokens []string
	s.Each(func(token string, rows int) { tokens = append(tokens, fmt.Sprint(token, rows)) })
	if len(tokens) != 1 || tokens[0] != "a1" {
		t.Errorf("tokens = %v, want a", tokens)
	}
	if got := drain(t, s); len(got) != 1 || got[0].Token != "a" {
		t.Errorf("batches = %v, want a", got)
	}
	if err := s.Append("b", 1, make([]byte, 100), 1<<20); err != nil {
		t.Errorf("after draining: %v", err)
	}
}

func TestDamageIsFound(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"a bit":           func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"a bit of rows":   func(b []byte) []byte { b[len(magic)+4] ^= 1; return b },
		"the magic":       func(b []byte) []byte { b[0] ^= 1; return b },
		"the end":         func(b []byte) []byte { return b[:len(b)-1] },
		"all":             func([]byte) []byte { return nil },
		"token's length":  func(b []byte) []byte { b[headerSize-1] ^= 0xff; return b },
		"only the header": func(b []byte) []byte { return b[:headerSize] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, 1<<20)
			for _, token := range []string{"bad", "good"} {
				if err := s.Append(token, 7, []byte("payload"), 1<<20); err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(dir, "0000000000000000.batch")
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(raw), 0o600); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, 1<<20)
			b, ok, err := s.Oldest()
			if !ok || !errors.Is(err, ErrCorrupt) {
				t.Fatalf("ok %v, error %v; want ErrCorrupt", ok, err)
			}
			if err := s.Remove(b); err != nil {
				t.Fatal(err)
			}
			if got := drain(t, s); len(got) != 1 || got[0].Token != "good" {
				t.Errorf("batches = %v, want good", got)
			}
			if got := s.Usage(); got != (Usage{}) {
				t.Errorf("usage = %+v, want nothing", got)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode("token", 3, []byte("payload")))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := decode(raw)
		if err == nil && !bytes.Equal(encode(b.Token, b.Rows, b.Payload), raw) {
			t.Errorf("decoded %x to %+v, which is written otherwise", raw, b)
		}
	})
}
