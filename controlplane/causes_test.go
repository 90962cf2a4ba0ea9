package controlplane

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
)

type fixedCauses struct {
	causes map[decide.Pool][]string
	err    error
}

func (f fixedCauses) Causes(context.Context) (map[decide.Pool][]string, error) {
	return f.causes, f.err
}

func TestCausesAreTakenWhileFresh(t *testing.T) {
	pool := decide.Pool{Service: "core", Name: "canary"}
	c := &causes{source: fixedCauses{causes: map[decide.Pool][]string{pool: {"connects take 1s"}}}, log: slog.New(slog.DiscardHandler)}
	if c.at(time.Now()) != nil {
		t.Error("causes before the first answer")
	}
	if err := c.ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.at(time.Now())[pool]; len(got) != 1 || got[0] != "connects take 1s" {
		t.Errorf("got %q", got)
	}
	if c.at(time.Now().Add(causesFresh+time.Second)) != nil {
		t.Error("old causes explain a decision")
	}
	c.source = fixedCauses{err: errors.New("away")}
	if err := c.ask(t.Context()); err == nil {
		t.Error("no error")
	}
	if c.at(time.Now())[pool] == nil {
		t.Error("the last answer is gone with one that failed")
	}
}

func TestNoCauseSourceIsFine(t *testing.T) {
	c := &causes{}
	if err := c.run(t.Context()); err != nil || c.at(time.Now()) != nil {
		t.Errorf("%v, %v", err, c.at(time.Now()))
	}
}
