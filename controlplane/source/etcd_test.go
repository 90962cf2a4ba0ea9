package source

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/source/etcdtest"
)

// TestEtcd: everyone, by label, by version; bad documents; a compaction and a restart of
// etcd in between.
func TestEtcd(t *testing.T) {
	server := etcdtest.Start(t)
	client := server.Client()
	put := func(key, value string) int64 {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r, err := client.Put(ctx, key, value)
		if err != nil {
			t.Fatal(err)
		}
		return r.Header.Revision
	}
	put("/config/app.yaml", "# author: ann\n# reason: first\none")

	readers := map[string]chan Update[string]{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 3)
	for name, e := range map[string]Etcd[string]{
		"plain": {}, "staging": {Labels: []string{"env=staging", "zone=a"}}, "v2": {Labels: []string{"env=staging"}, Version: "v2"},
	} {
		e.Client, e.Prefix, e.MaxSize, e.Retry, e.Log = server.Client(), "/config", 100, 20*time.Millisecond, slog.New(slog.DiscardHandler)
		e.Parse = func(b []byte) (string, error) {
			if strings.Contains(string(b), "bad") {
				return "", errors.New("it is bad")
			}
			lines := strings.Split(string(b), "\n")
			return lines[len(lines)-1], nil
		}
		updates := make(chan Update[string])
		readers[name] = updates
		go func() { done <- e.Run(ctx, updates) }()
	}
	next := func(name string) Update[string] {
		t.Helper()
		select {
		case u := <-readers[name]:
			return u
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: no update", name)
			return Update[string]{}
		}
	}
	want := func(value string, names ...string) {
		t.Helper()
		for _, name := range names {
			if u := next(name); u.Err != nil || u.Value != value {
				t.Errorf("%s: %+v, want %s", name, u, value)
			}
		}
	}
	for name := range readers {
		if u := next(name); u.Value != "one" || u.From != "etcd:ann" || u.Reason != "first" {
			t.Errorf("%s: %+v", name, u)
		}
	}
	put("/config/app/gray/env=staging", "gray")
	want("gray", "staging", "v2")
	put("/config/app/version/v2", "v2")
	want("v2", "v2")
	put("/config/app.yaml", "two")
	want("two", "plain")
	put("/config/app.yaml", "bad")
	if u := next("plain"); u.Err == nil || string(u.Raw) != "bad" || u.From != "etcd:/config/app.yaml" {
		t.Errorf("a bad one: %+v", u)
	}
	put("/config/app.yaml", strings.Repeat("x", 101))
	if u := next("plain"); u.Err == nil || !strings.Contains(u.Err.Error(), "larger than 100 bytes") {
		t.Errorf("a large one: %+v", u)
	}
	if _, err := client.Delete(t.Context(), "/config/app/version/v2"); err != nil {
		t.Fatal(err)
	}
	want("gray", "v2")

	// Etcd goes, forgets what happened meanwhile, and comes back.
	server.Stop()
	server.Start()
	var last int64
	for _, v := range []string{"three", "four", "five"} {
		last = put("/config/app.yaml", v)
	}
	if _, err := client.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	for {
		u := next("plain")
		if u.Value == "five" {
			break
		}
		if u.Value != "three" && u.Value != "four" {
			t.Fatalf("after the restart: %+v", u)
		}
	}
	put("/config/app.yaml", "six")
	want("six", "plain")
	cancel()
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
