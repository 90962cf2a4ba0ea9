package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func parse(b []byte) (string, error) {
	if strings.Contains(string(b), "bad") {
		return "", errors.New("it is bad")
	}
	return string(b), nil
}

func watch(t *testing.T, path string, poll time.Duration) <-chan Update[string] {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, done := make(chan Update[string]), make(chan error, 1)
	go func() {
		done <- File[string]{Path: path, Parse: parse, MaxSize: 100, Settle: 5 * time.Millisecond, Poll: poll}.Run(ctx, out)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return out
}

func next(t *testing.T, in <-chan Update[string]) Update[string] {
	t.Helper()
	select {
	case u := <-in:
		return u
	case <-time.After(time.Minute):
		t.Fatal("no update within a minute")
	}
	return Update[string]{}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace writes as most editors do: a new file, then a rename over the old one.
func replace(t *testing.T, path, content string) {
	t.Helper()
	put(t, path+"~", content)
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsFollowed(t *testing.T) {
	t.Parallel()
	for name, poll := range map[string]time.Duration{"by notification": time.Hour, "by polling": 10 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "policy.yaml")
			in := watch(t, path, poll)
			if u := next(t, in); u.Err == nil || !strings.Contains(u.Err.Error(), "does not exist") {
				t.Errorf("a missing file: %+v", u)
			}
			replace(t, path, "one")
			if u := next(t, in); u.Value != "one" || string(u.Raw) != "one" {
				t.Errorf("the first content: %+v", u)
			}
			for _, content := range []string{"two", "three", "four"} { // the watch survives renames
				replace(t, path, content)
				if u := next(t, in); u.Value != content {
					t.Errorf("after a rename: %+v, want %s", u, content)
				}
			}
			replace(t, path, "bad")
			if u := next(t, in); u.Err == nil || u.Value != "" || string(u.Raw) != "bad" {
				t.Errorf("bad content: %+v", u)
			}
			replace(t, path, strings.Repeat("x", 101))
			if u := next(t, in); u.Err == nil || !strings.Contains(u.Err.Error(), "larger than 100 bytes") {
				t.Errorf("large content: %+v", u)
			}
			os.Remove(path)
			if u := next(t, in); u.Err == nil || !strings.Contains(u.Err.Error(), "does not exist") {
				t.Errorf("removed: %+v", u)
			}
			replace(t, path, "back")
			if u := next(t, in); u.Value != "back" {
				t.Errorf("back: %+v", u)
			}
		})
	}
}

// TestSameContentIsSentOnce writes the same again; the next update must be the
// different one.
func TestSameContentIsSentOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	put(t, path, "one")
	in := watch(t, path, 10*time.Millisecond)
	next(t, in)
	for range 5 {
		replace(t, path, "one")
	}
	replace(t, path, "two")
	if u := next(t, in); u.Value != "two" {
		t.Errorf("update: %+v", u)
	}
}

// TestWrittenFileIsReadAtOnce: whoever replaces it as a whole does not wait for it to
// settle, which this one never does.
func TestWrittenFileIsReadAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	put(t, path, "one")
	ctx, cancel := context.WithCancel(t.Context())
	out, written, done := make(chan Update[string]), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- File[string]{Path: path, Parse: parse, MaxSize: 100, Settle: time.Hour, Poll: time.Hour, Written: written}.Run(ctx, out)
	}()
	next(t, out)
	replace(t, path, "two")
	written <- struct{}{}
	if u := next(t, out); u.Value != "two" {
		t.Errorf("update: %+v", u)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestOtherFilesInTheFolderDoNotMatter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	put(t, path, "one")
	in := watch(t, path, time.Hour)
	next(t, in)
	put(t, filepath.Join(dir, "other.yaml"), "x")
	replace(t, path, "two")
	if u := next(t, in); u.Value != "two" {
		t.Errorf("update: %+v", u)
	}
}
