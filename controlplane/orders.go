package controlplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/history"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/strict"
)

// orders hands an operator's requests to the loop. It is what ctl sees of it.
type orders struct {
	parse     func(document []byte) (policy.Policy, error)
	put       func(ctx context.Context, document []byte) error
	history   *history.Log
	requests  chan orderRequest
	drains    chan drainRequest
	reapplied chan reapplied

	// Of settings: see services.
	putSettings func(ctx context.Context, key string, document []byte) error
	histories   *histories
	check       func(key string, document []byte) error
}

// reapplied is a document that was put; key is empty where it is the policy.
type reapplied struct {
	key      string
	document []byte
}

// orderRequest is one order; the loop answers once.
type orderRequest struct {
	action decide.Action
	id     group.ID
	order  ctlapi.Order
	// confirm is the decision whose advice is followed; action and id do not count then.
	confirm string
	reply   chan answered[decide.Decision]
}

// answered is what became of a request. Its channel has room for it.
type answered[A any] struct {
	answer A
	err    error
}

func newOrders(to policies, h *history.Log, s *services) *orders {
	return &orders{parse: to.parse, put: to.put, history: h, putSettings: to.putSettings, histories: s.histories, check: s.valid, requests: make(chan orderRequest), drains: make(chan drainRequest), reapplied: make(chan reapplied)}
}

// Order waits for the loop, which answers within milliseconds or has ended.
func (o *orders) Order(ctx context.Context, action decide.Action, id group.ID, order ctlapi.Order) (decide.Decision, error) {
	reply := make(chan answered[decide.Decision], 1)
	return ask(ctx, o.requests, orderRequest{action: action, id: id, order: order, reply: reply}, reply)
}

// Confirm follows the advice of a decision.
func (o *orders) Confirm(ctx context.Context, id string, order ctlapi.Order) (decide.Decision, error) {
	reply := make(chan answered[decide.Decision], 1)
	return ask(ctx, o.requests, orderRequest{confirm: id, order: order, reply: reply}, reply)
}

// ask hands a request to the loop and waits for what becomes of it.
func ask[Q, A any](ctx context.Context, to chan<- Q, q Q, reply <-chan answered[A]) (A, error) {
	var none A
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	busy := &protocol.Error{Code: protocol.CodeUnavailable, Message: "control plane is busy or ending", Temporary: true}
	select {
	case to <- q:
	case <-ctx.Done():
		return none, busy
	}
	select {
	case a := <-reply:
		return a.answer, a.err
	case <-ctx.Done():
		return none, busy
	}
}

// PutPolicy writes where the source reads, which picks it up like any other change; one
// that was taken back is tried again.
func (o *orders) PutPolicy(ctx context.Context, document []byte, by, reason string) error {
	if _, err := o.parse(document); err != nil {
		return refusedDocument(err)
	}
	o.history.Announce(document, by, reason)
	if err := o.put(ctx, document); err != nil {
		return fmt.Errorf("write policy: %w", err)
	}
	return o.again(ctx, reapplied{document: document})
}

// again is for where the source says nothing, because the document is the one it has.
func (o *orders) again(ctx context.Context, r reapplied) error {
	select {
	case o.reapplied <- r:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refusedDocument names the first key that is wrong.
func refusedDocument(err error) error {
	e := &protocol.Error{Code: protocol.CodeInvalidArgument, Message: err.Error()}
	if invalid := new(strict.Error); errors.As(err, &invalid) && len(invalid.Problems) > 0 {
		e.Field = invalid.Problems[0].Path
	}
	return e
}

// PutSettings is PutPolicy for the settings of a key; an empty document removes them.
func (o *orders) PutSettings(ctx context.Context, key string, document []byte, by, reason string) error {
	if err := o.check(key, document); err != nil {
		return refusedDocument(err)
	}
	h, err := o.histories.of(key)
	if err != nil {
		return err
	}
	h.Announce(document, by, reason)
	if err := o.putSettings(ctx, key, document); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return o.again(ctx, reapplied{key, document})
}
