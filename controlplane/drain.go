package controlplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core/protocol"
)

const (
	drainsFile = "drains.json"
	maxDrains  = 1000
	// drainGone is how long an instance may be away before its drain ends: addresses are
	// used again, and another instance must not get nothing because of one before it.
	drainGone = time.Minute
)

// drainRequest is one order about an instance; the loop answers once.
type drainRequest struct {
	order ctlapi.DrainOrder
	undo  bool
	reply chan answered[ctlapi.Drain]
}

// Drain is [ctl.Drains]'s.
func (o *orders) Drain(ctx context.Context, order ctlapi.DrainOrder) (ctlapi.Drain, error) {
	reply := make(chan answered[ctlapi.Drain], 1)
	return ask(ctx, o.drains, drainRequest{order: order, reply: reply}, reply)
}

// Undrain is [ctl.Drains]'s.
func (o *orders) Undrain(ctx context.Context, order ctlapi.DrainOrder) (ctlapi.Drain, error) {
	reply := make(chan answered[ctlapi.Drain], 1)
	return ask(ctx, o.drains, drainRequest{order: order, undo: true, reply: reply}, reply)
}

// drain carries out an operator's order about an instance.
func (l *loop) drain(r drainRequest, now time.Time) (ctlapi.Drain, error) {
	w := l.effective()
	if !w.complete() {
		return ctlapi.Drain{}, &protocol.Error{Code: protocol.CodeUnavailable, Message: "no valid policy and endpoints yet", Temporary: true}
	}
	d, next, err := drained(l.drains, w, r.order, now)
	if r.undo {
		d, next, err = undrained(l.drains, *w.policy, r.order)
	}
	if err != nil {
		return ctlapi.Drain{}, err
	}
	if err := l.keepDrains(next); err != nil {
		return ctlapi.Drain{}, &protocol.Error{Code: protocol.CodeUnavailable, Message: "the order could not be kept on disk: " + err.Error(), Temporary: true}
	}
	l.log.Info("instance", "drains", !r.undo, "service", d.Service, "pool", d.Pool, "instance", d.Instance, "by", r.order.By, "reason", r.order.Reason)
	l.program(now, nil)
	return d, nil
}

// drained is the drains with one more, or with another end of it.
func drained(all []ctlapi.Drain, w wish, o ctlapi.DrainOrder, now time.Time) (ctlapi.Drain, []ctlapi.Drain, error) {
	d := ctlapi.Drain{Service: instancesOf(*w.policy, o.Service), Pool: o.Pool, Instance: o.Instance, By: o.By, Reason: o.Reason, Since: now}
	if o.ForMS > 0 {
		d.Until = now.Add(time.Duration(o.ForMS) * time.Millisecond)
	}
	pools, ok := w.endpoints.Services[d.Service]
	switch {
	case !ok:
		return d, nil, protocol.NewError(protocol.CodeNotFound, "service", fmt.Sprintf("no service %.100q has instances", o.Service))
	case len(pools[d.Pool]) == 0:
		return d, nil, protocol.NewError(protocol.CodeNotFound, "pool", fmt.Sprintf("pool %.100q of %s has no instances", o.Pool, d.Service))
	case !slices.Contains(pools[d.Pool], d.Instance):
		return d, nil, protocol.NewError(protocol.CodeNotFound, "instance", fmt.Sprintf("%s/%s has no instance %.100q: tracegate ctl endpoints lists them", d.Service, d.Pool, o.Instance))
	}
	others := slices.DeleteFunc(inRotation(*w.endpoints, d.Service, d.Pool), func(a string) bool { return a == d.Instance })
	if len(others) == 0 && !o.Force {
		return d, nil, protocol.NewError(protocol.CodeInvalidArgument, "instance", fmt.Sprintf("no other instance of %s/%s would serve: force it where that is meant", d.Service, d.Pool))
	}
	_, next, _ := undrained(all, *w.policy, o) // the end and the reason are the newest order's
	if len(next) >= maxDrains {
		return d, nil, protocol.NewError(protocol.CodeRateLimited, "", fmt.Sprintf("%d instances drain already", maxDrains))
	}
	next = append(next, d)
	slices.SortFunc(next, func(a, b ctlapi.Drain) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Instance, b.Instance))
	})
	return d, next, nil
}

// undrained is the drains without one.
func undrained(all []ctlapi.Drain, p policy.Policy, o ctlapi.DrainOrder) (ctlapi.Drain, []ctlapi.Drain, error) {
	service := instancesOf(p, o.Service)
	i := slices.IndexFunc(all, func(d ctlapi.Drain) bool {
		return d.Service == service && d.Pool == o.Pool && d.Instance == o.Instance
	})
	if i < 0 {
		return ctlapi.Drain{}, slices.Clone(all), protocol.NewError(protocol.CodeNotFound, "instance", "the instance does not drain")
	}
	return all[i], slices.Delete(slices.Clone(all), i, i+1), nil
}

// instancesOf is the service under which the instances of one are listed.
func instancesOf(p policy.Policy, service string) string {
	for _, s := range p.Services {
		if s.Name == service {
			return cmp.Or(s.Instances, s.Name)
		}
	}
	return service
}

// draining are drains as endpoints have them.
func draining(all []ctlapi.Drain) map[string]map[string][]string {
	if len(all) == 0 {
		return nil
	}
	out := map[string]map[string][]string{}
	for _, d := range all {
		if out[d.Service] == nil {
			out[d.Service] = map[string][]string{}
		}
		out[d.Service][d.Pool] = append(out[d.Service][d.Pool], d.Instance)
	}
	return out
}

// inRotation are the instances of a pool that do not drain.
func inRotation(e policy.Endpoints, service, pool string) []string {
	return slices.DeleteFunc(slices.Clone(e.Services[service][pool]), func(a string) bool {
		return slices.Contains(e.Draining[service][pool], a)
	})
}

// drainEnd is when a drain ends by itself; zero: never.
func drainEnd(d ctlapi.Drain) time.Time {
	if d.Gone.IsZero() {
		return d.Until
	}
	return earliest(d.Until, d.Gone.Add(drainGone))
}

// earliest is the first of times; one that is zero does not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func nextDrainEnd(all []ctlapi.Drain) time.Time {
	var next time.Time
	for _, d := range all {
		next = earliest(next, drainEnd(d))
	}
	return next
}

// endDrains makes a new plan where a drain has ended.
func (l *loop) endDrains(now time.Time) {
	left := slices.DeleteFunc(slices.Clone(l.drains), func(d ctlapi.Drain) bool {
		end := drainEnd(d)
		return !end.IsZero() && !now.Before(end)
	})
	if len(left) == len(l.drains) {
		return
	}
	l.log.Info("drains of instances have ended", "ended", len(l.drains)-len(left), "left", len(left))
	if err := l.keepDrains(left); err != nil {
		l.drains = left // a restart ends them once more
	}
	l.program(now, nil)
}

// followDrains notes which instances that drain have gone or come back.
func (l *loop) followDrains(now time.Time) {
	next, changed := slices.Clone(l.drains), false
	for i, d := range next {
		there := slices.Contains(l.wanted.endpoints.Services[d.Service][d.Pool], d.Instance)
		switch {
		case there && !d.Gone.IsZero():
			next[i].Gone, changed = time.Time{}, true
		case !there && d.Gone.IsZero():
			next[i].Gone, changed = now, true
		}
	}
	if changed && l.keepDrains(next) != nil {
		l.drains = next
	}
}

// keepDrains makes drains durable, then those that count.
func (l *loop) keepDrains(next []ctlapi.Drain) error {
	if err := l.keep(drainsFile, func() error { return durable.Save(l.path(drainsFile), savedDrains{next}) }); err != nil {
		return err
	}
	l.drains = next
	l.metrics.draining.Set(float64(len(next)))
	return nil
}

// savedDrains is the file of them.
type savedDrains struct {
	Drains []ctlapi.Drain `json:"drains"`
}

func (l *loop) loadDrains() error {
	var s savedDrains
	err := durable.Load(l.path(drainsFile), &s)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, durable.ErrCorrupt):
		l.log.Error("drains are lost, instances are in rotation", "error", err)
	case err != nil:
		return fmt.Errorf("load drains: %w", err)
	}
	l.drains = s.Drains
	l.metrics.draining.Set(float64(len(s.Drains)))
	return nil
}
