package durable

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestSignedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "edge.json")
	key, err := Key(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Key(filepath.Join(dir, "key"))
	if err != nil || !bytes.Equal(key, again) || len(key) != KeySize {
		t.Fatalf("key of %d bytes, read again: same %v, %v", len(key), bytes.Equal(key, again), err)
	}
	var got map[string]int
	if err := LoadSigned(path, key, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := SaveSigned(path, key, map[string]int{"answer": 42}); err != nil {
		t.Fatal(err)
	}
	if err := LoadSigned(path, key, &got); err != nil || got["answer"] != 42 {
		t.Errorf("read back: %v, %v", got, err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Repeat([]byte{7}, KeySize)
	if err := LoadSigned(path, other, &got); !errors.Is(err, ErrForged) {
		t.Errorf("another key: %v", err)
	}
	for name, c := range map[string]struct {
		file string
		data []byte
		want error
	}{
		"edited":             {"edge.json", bytes.Replace(good, []byte("42"), []byte("43"), 1), ErrForged},
		"of another name":    {"other.json", good, ErrForged},
		"torn":               {"edge.json", good[:len(good)/2], ErrCorrupt},
		"empty":              {"edge.json", nil, ErrCorrupt},
		"without signature":  {"edge.json", []byte(`{"value":{"answer":42}}`), ErrForged},
		"of the old form":    {"edge.json", []byte(`{"sha256":"00","value":{"answer":42}}`), ErrForged},
		"signature, no more": {"edge.json", []byte(`{"hmac_sha256":"00"}`), ErrForged},
	} {
		file := filepath.Join(dir, c.file)
		if err := os.WriteFile(file, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := LoadSigned(file, key, &got); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "short"), []byte("abcd\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Key(filepath.Join(dir, "short")); err == nil {
		t.Error("a short key was taken")
	}
}
