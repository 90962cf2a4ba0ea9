package controlplane

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/controlplane/history"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/group"
)

// orders hands an operator's requests to the loop. It is what ctl sees of it.
type orders struct {
	policyFile string
	history    *history.Log
	requests   chan orderRequest
}

// orderRequest is one order; the loop answers once.
type orderRequest struct {
	action decide.Action
	id     group.ID
	order  ctlapi.Order
	reply  chan orderReply // has room for the answer
}

type orderReply struct {
	decision decide.Decision
	err      error
}

func newOrders(policyFile string, h *history.Log) *orders {
	return &orders{policyFile: policyFile, history: h, requests: make(chan orderRequest)}
}

// Order waits for the loop, which answers within milliseconds or has ended.
func (o *orders) Order(ctx context.Context, action decide.Action, id group.ID, order ctlapi.Order) (decide.Decision, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	busy := &protocol.Error{Code: protocol.CodeUnavailable, Message: "control plane is busy or ending", Temporary: true}
	r := orderRequest{action: action, id: id, order: order, reply: make(chan orderReply, 1)}
	select {
	case o.requests <- r:
	case <-ctx.Done():
		return decide.Decision{}, busy
	}
	select {
	case a := <-r.reply:
		return a.decision, a.err
	case <-ctx.Done():
		return decide.Decision{}, busy
	}
}

// PutPolicy only writes the file; the source picks it up like any other change.
func (o *orders) PutPolicy(_ context.Context, document []byte, by, reason string) error {
	if _, err := policy.Parse(document); err != nil {
		e := &protocol.Error{Code: protocol.CodeInvalidArgument, Message: err.Error()}
		var invalid *policy.Error
		if errors.As(err, &invalid) && len(invalid.Problems) > 0 {
			e.Field = invalid.Problems[0].Path
		}
		return e
	}
	o.history.Announce(document, "operator:"+by, reason)
	if err := durable.Replace(o.policyFile, document); err != nil {
		return fmt.Errorf("write policy: %w", err)
	}
	return nil
}
