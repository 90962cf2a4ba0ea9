package durable

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.json")
	want := map[string]int{"a": 1, "b": 2}
	for range 2 { // the second replaces
		if err := Save(path, want); err != nil {
			t.Fatal(err)
		}
	}
	var got map[string]int
	if err := Load(path, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
}

// TestDamageIsFound flips every byte in turn, and cuts the file anywhere.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.json")
	if err := Save(path, map[string]string{"group": "abcdef"}); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	load := func(data []byte) (map[string]string, error) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		return got, Load(path, &got)
	}
	for i := range whole[:len(whole)-1] {
		damaged := append([]byte{}, whole...)
		damaged[i] ^= 0x01
		if got, err := load(damaged); err == nil && got["group"] != "abcdef" {
			t.Errorf("byte %d flipped: %v", i, got)
		} else if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
		if _, err := load(whole[:i]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	if err := Load(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestSaveThatFailsLeavesTheOldValue(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Save(filepath.Join(dir, "missing", "state.json"), 1); err == nil {
		t.Error("saved into a folder that is not there")
	}
	path := filepath.Join(dir, "state.json")
	if err := Save(path, 1); err != nil {
		t.Fatal(err)
	}
	if err := Save(path, func() {}); err == nil {
		t.Error("saved a function")
	}
	var got int
	if err := Load(path, &got); err != nil || got != 1 {
		t.Errorf("value %d, %v", got, err)
	}
}

func lines(t *testing.T, path string) (out []string, torn int) {
	t.Helper()
	torn, err := ReadJournal(path, func(line []byte) error {
		var v struct{ N int }
		if err := json.Unmarshal(line, &v); err != nil {
			return err
		}
		out = append(out, string(line))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, torn
}

func TestJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	if out, _ := lines(t, path); len(out) != 0 {
		t.Errorf("no journal: %v", out)
	}
	j, err := OpenJournal(path, 40)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 9 { // 8 bytes each: five to a file
		if err := j.Append(struct{ N int }{i}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	out, torn := lines(t, path)
	if torn != 0 || strings.Join(out, "") != `{"N":0}{"N":1}{"N":2}{"N":3}{"N":4}{"N":5}{"N":6}{"N":7}{"N":8}` {
		t.Errorf("%d torn, lines: %v", torn, out)
	}
	// The next rotation drops the oldest file.
	if j, err = OpenJournal(path, 8); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(struct{ N int }{9}); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if out, _ = lines(t, path); strings.Join(out, "") != `{"N":5}{"N":6}{"N":7}{"N":8}{"N":9}` {
		t.Errorf("lines: %v", out)
	}
}

// TestWriteThatFailsTakesNoOtherWithIt: a full disk leaves a part of a line, and the next
// one that is said to be durable must not be behind it.
func TestWriteThatFailsTakesNoOtherWithIt(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j, err := OpenJournal(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	full, err := os.Open(path) // takes no write
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	write := func(n int) error { return j.Append(struct{ N int }{n}) }
	if err := write(1); err != nil {
		t.Fatal(err)
	}
	if _, err := j.file.WriteString(`{"N":`); err != nil {
		t.Fatal(err)
	}
	working := j.file
	j.file = full
	if err := write(2); err == nil {
		t.Error("written")
	}
	j.file = working
	if err := errors.Join(write(3), write(4)); err != nil {
		t.Fatal(err)
	}
	if out, torn := lines(t, path); torn != 1 || strings.Join(out, " ") != `{"N":1} {"N":3} {"N":4}` {
		t.Errorf("%s, %d torn", out, torn)
	}
}

// TestRotationThatFailsIsTriedAgain: a moment without file descriptors or without its folder
// costs what is appended in it, and nothing after it.
func TestRotationThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "journal")
	j, err := OpenJournal(path, 8)
	if err != nil {
		t.Fatal(err)
	}
	write := func(n int) error { return j.Append(struct{ N int }{n}) }
	if err := write(1); err != nil { // the next one rotates
		t.Fatal(err)
	}
	if err := os.Rename(folder, folder+".gone"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := write(2); err == nil {
			t.Error("written to a folder that is gone")
		}
	}
	if err := os.Rename(folder+".gone", folder); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(write(3), write(4), j.Close()); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if out, torn := lines(t, path); torn != 0 || strings.Join(out, " ") != `{"N":1} {"N":3} {"N":4}` {
		t.Errorf("%s, %d torn", out, torn)
	}
}

func TestTornLineIsLeftOut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, []byte("{\"N\":1}\n{\"N\":"), 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := OpenJournal(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(struct{ N int }{2}); err != nil {
		t.Fatal(err)
	}
	j.Close()
	out, torn := lines(t, path)
	if torn != 1 || strings.Join(out, "") != `{"N":1}{"N":2}` {
		t.Errorf("%d torn, lines: %v", torn, out)
	}
}
