package settings

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/mesh/strict"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	i := Instance{Service: "core", Node: "n1", Version: "v2", Labels: []string{"env=staging", "pool=canary"}}
	want := []string{"core/version/v2", "core/gray/env=staging", "core/gray/pool=canary", "core"}
	if got := i.Keys(); !slices.Equal(got, want) || i.Validate() != nil {
		t.Errorf("keys %v, %v", got, i.Validate())
	}
	for _, key := range want {
		if s, ok := ServiceOf(key); s != "core" || !ok {
			t.Errorf("%s: of %q, %v", key, s, ok)
		}
	}
	for _, bad := range []string{"", "/", "core/", "Core", "core/gray", "core/gray/", "core/gray/env", "core/gray/a=b/c", "core/version/", "core/version/../x", "core/other/a=b", "core//gray/a=b", "../core"} {
		if _, ok := ServiceOf(bad); ok {
			t.Errorf("%q is a key", bad)
		}
	}
	for field, bad := range map[string]Instance{
		"service":   {Service: "Core", Node: "n"},
		"node":      {Service: "core", Node: "a b"},
		"version":   {Service: "core", Node: "n", Version: "a/b"},
		"labels[1]": {Service: "core", Node: "n", Labels: []string{"a=b", "c"}},
		"labels":    {Service: "core", Node: "n", Labels: slices.Repeat([]string{"a=b"}, MaxLabels+1)},
	} {
		if err := bad.Validate(); err == nil || !strings.HasPrefix(err.Error(), field+": ") {
			t.Errorf("%s: %v", field, err)
		}
	}
}

type knobs struct {
	Level string        `yaml:"level"`
	Every time.Duration `yaml:"every"`
	Size  struct {
		Most int `yaml:"most"`
	} `yaml:"size"`
}

// script hands out documents one after the other.
type script struct {
	documents []Document
	answers   []error
}

func (s *script) WatchSettings(ctx context.Context, _ Instance, each func(Document) error) error {
	for _, d := range s.documents {
		s.answers = append(s.answers, each(d))
	}
	return ctx.Err()
}

func TestLive(t *testing.T) {
	t.Parallel()
	var inForce []knobs
	told := 0
	own := knobs{Level: "info", Every: time.Second}
	own.Size.Most = 5
	l := Live[knobs]{
		Own: own, Apply: func(k knobs) { inForce = append(inForce, k) }, Log: slog.New(slog.DiscardHandler), Taken: func(Document, error) { told++ },
		Check: func(k knobs, invalid func(path, format string, args ...any)) {
			if k.Size.Most < 1 {
				invalid("size.most", "must be above 0")
			}
		},
	}
	s := &script{documents: []Document{
		{Key: "x", Revision: 1, Text: "level: debug\n"},
		{Key: "x", Revision: 1, Text: "level: debug\n"},
		{Key: "x", Revision: 2, Text: "every: 2s\nsize:\n  most: 0\n"},
		{Key: "x", Revision: 2, Text: "every: 2s\nsize:\n  most: 0\n"},
		{Key: "x", Revision: 3, Text: "evry: 2s\n"},
		{Key: "x", Revision: 4, Text: "size: {most: 7}\n"},
		{},
	}}
	if err := l.Run(t.Context(), s, Instance{Service: "x", Node: "n"}); err != nil {
		t.Fatal(err)
	}
	first, fourth := own, own
	first.Level = "debug"
	fourth.Size.Most = 7
	if want := []knobs{first, fourth, own}; !slices.Equal(inForce, want) {
		t.Errorf("in force one after the other: %+v, want %+v", inForce, want)
	}
	if told != 5 {
		t.Errorf("told of %d documents, want 5: what comes again is no other", told)
	}
	for i, want := range []string{"", "", "line 3: size.most: must be above 0", "line 3: size.most: must be above 0", `line 1: evry: unknown key, did you mean "every"?`, "", ""} {
		got := ""
		if err := s.answers[i]; err != nil {
			got = err.Error()
			if invalid := new(strict.Error); !errors.As(err, &invalid) {
				t.Errorf("answer %d is a %T", i, err)
			}
		}
		if got != want {
			t.Errorf("answer %d: %q, want %q", i, got, want)
		}
	}
}

func TestLeveled(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	log, level := Leveled(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if level.Level() != slog.LevelWarn || LevelOf(slog.New(slog.NewTextHandler(&strings.Builder{}, &slog.HandlerOptions{Level: slog.LevelError}))) != slog.LevelError {
		t.Errorf("begins at %v", level.Level())
	}
	with := log.With("a", 1).WithGroup("g")
	with.Info("first")
	level.Set(slog.LevelDebug)
	with.Debug("second", "b", 2)
	level.Set(slog.LevelError)
	with.Warn("third")
	if got := out.String(); !strings.Contains(got, "second") || !strings.Contains(got, "a=1 g.b=2") || strings.Contains(got, "first") || strings.Contains(got, "third") {
		t.Errorf("wrote %q", got)
	}
}
