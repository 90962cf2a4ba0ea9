package session

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/observability/semconv"
)

// maxPositions bounds a Resume, which names the conversations that a user has and those
// that the client still knows of it.
const maxPositions = 2 * chat.MaxConversations

// MaxResume is how many bytes a Resume may have, in any encoding. A position has at most
// 59: an id of 36 and a number of 19, and in JSON quotes, a colon and a comma.
const MaxResume = 64 * maxPositions

// readLoop reads commands until the connection ends. Each is read to its end and handled
// by a goroutine of its own, one at a time: a stack that has grown for JSON would stay
// large for as long as the connection is idle. What is left fits the 2 KB that a
// goroutine starts with; with ws.ReadMessage here it would have 4 KB for good.
func (c *conn) readLoop(ws *websocket.Conn) {
	ws.SetReadLimit(max(MaxResume, c.hub.cfg.FrameLimit)) // of the first frame
	ws.SetPongHandler(func(string) error { c.seen(); return nil })
	ws.SetPingHandler(func(data string) error { c.seen(); c.control(websocket.PongMessage, data); return nil })
	ws.SetCloseHandler(func(int, string) error { return nil }) // see readEnded
	var handling sync.WaitGroup
	for {
		kind, r, err := ws.NextReader()
		if err != nil {
			c.readEnded(err)
			return
		}
		handling.Go(func() { c.frame(kind, r) })
		handling.Wait()
		ws.SetReadLimit(c.hub.cfg.FrameLimit)
	}
}

func (c *conn) frame(kind int, r io.Reader) {
	text := c.hub.borrow()
	defer c.hub.giveBack(text)
	if _, err := text.ReadFrom(r); err != nil {
		return // the loop gets the same error
	}
	b := text.Bytes() // what is decoded from it is copied
	c.seen()
	if !c.isClosed() { // else nobody could answer; the client will ask again elsewhere
		c.decode(kind, b)
	}
}

// readEnded ends a connection that cannot be read any more.
func (c *conn) readEnded(err error) {
	_, network := errors.AsType[net.Error](err)
	closed, ok := errors.AsType[*websocket.CloseError](err)
	switch {
	case ok && closed.Code != websocket.CloseAbnormalClosure: // a close frame
		label := "lost"
		if closed.Code == websocket.CloseNormalClosure || closed.Code == websocket.CloseGoingAway {
			label = "client"
		}
		if c.farewell(closed.Code, label) {
			c.linger()
		}
	case ok, network:
		c.ended("lost")
	case errors.Is(err, websocket.ErrReadLimit):
		c.farewell(websocket.CloseMessageTooBig, "too_large")
		c.linger()
	default:
		c.farewell(websocket.CloseProtocolError, closeLabel(protocol.CloseProtocol))
		c.linger()
	}
	_ = c.tcp.Close()
}

// linger reads what is still on its way, until the client hangs up or goodbye's deadline:
// closing a connection with unread data resets it, and the client might never see the
// close frame that tells it why.
func (c *conn) linger() { _, _ = io.Copy(io.Discard, c.tcp) }

// refuse ends a connection whose client does not speak the protocol. What it sends
// until it is gone is read and thrown away by the caller's loop.
func (c *conn) refuse(code int, why string) {
	c.send(protocol.Frame{Error: protocol.NewError(protocol.CodeInvalidArgument, "frame", why)})
	c.close(code, true)
}

// handle answers a command or sees to it that it is; it is false for one after which
// nothing more is read.
func (c *conn) handle(cmd protocol.Command) bool {
	set := 0
	for _, is := range []bool{
		cmd.Send != nil, cmd.Edit != nil, cmd.Recall != nil, cmd.React != nil, cmd.Unreact != nil, cmd.Mark != nil, cmd.Typing != nil, cmd.Resume != nil, cmd.Ping != nil,
	} {
		if is {
			set++
		}
	}
	switch {
	case cmd.ID == 0:
		c.refuse(protocol.CloseProtocol, "a command needs an id above 0")
		return false
	case set != 1:
		c.fail(cmd.ID, protocol.NewError(protocol.CodeInvalidArgument, "", "exactly one of send, edit, recall, react, unreact, mark, typing, resume and ping must be set"))
	case !c.mayCommand():
		c.hub.metrics.commands.WithLabelValues("limited").Inc()
		c.fail(cmd.ID, protocol.NewError(protocol.CodeRateLimited, "", "too many commands"))
	case cmd.Resume != nil:
		c.hub.metrics.commands.WithLabelValues("resume").Inc()
		c.resume(cmd.ID, cmd.Resume)
	default:
		c.mu.Lock()
		if c.state == waiting { // the first command is no Resume
			c.begin(nil, 0)
		}
		c.mu.Unlock()
		if cmd.Ping != nil {
			c.hub.metrics.commands.WithLabelValues("ping").Inc()
			c.send(protocol.Frame{ID: cmd.ID, Pong: &protocol.Ping{}})
			return true
		}
		c.dispatch(cmd)
	}
	return true
}

func (c *conn) fail(id uint32, err *protocol.Error) {
	c.send(protocol.Frame{ID: id, Error: err})
}

// dispatch hands on a command whose answer may take its time.
func (c *conn) dispatch(cmd protocol.Command) {
	to, signals, from := c.hub.deps.Sender, c.hub.deps.Signals, c.user()
	switch {
	case cmd.Send != nil:
		c.accept("send", cmd.ID, func(ctx context.Context, trace string, done func(protocol.Accepted, error)) {
			to.Accept(ctx, from, *cmd.Send, trace, done)
		})
	case cmd.Edit != nil:
		c.accept("edit", cmd.ID, func(ctx context.Context, trace string, done func(protocol.Accepted, error)) {
			to.Edit(ctx, from, *cmd.Edit, trace, done)
		})
	case cmd.Recall != nil:
		c.accept("recall", cmd.ID, func(ctx context.Context, trace string, done func(protocol.Accepted, error)) {
			to.Recall(ctx, from, *cmd.Recall, trace, done)
		})
	case cmd.React != nil:
		c.accept("react", cmd.ID, func(ctx context.Context, trace string, done func(protocol.Accepted, error)) {
			to.React(ctx, from, *cmd.React, trace, done)
		})
	case cmd.Unreact != nil:
		c.accept("unreact", cmd.ID, func(ctx context.Context, trace string, done func(protocol.Accepted, error)) {
			to.Unreact(ctx, from, *cmd.Unreact, trace, done)
		})
	case cmd.Mark != nil:
		c.async("mark", cmd.ID, func(ctx context.Context, _ string, done func(protocol.Frame, error)) {
			signals.Mark(ctx, from, *cmd.Mark, func(r protocol.Receipt, err error) { done(protocol.Frame{Receipt: &r}, err) })
		})
	case cmd.Typing != nil:
		c.async("typing", cmd.ID, func(ctx context.Context, _ string, done func(protocol.Frame, error)) {
			done(protocol.Frame{Typing: cmd.Typing}, signals.Typing(ctx, from, cmd.Typing.Conversation))
		})
	}
}

// accept hands something to the log; the reply is sent when it is durable.
func (c *conn) accept(command string, id uint32, send func(context.Context, string, func(protocol.Accepted, error))) {
	c.async(command, id, func(ctx context.Context, trace string, done func(protocol.Frame, error)) {
		send(ctx, trace, func(a protocol.Accepted, err error) { done(protocol.Frame{Accepted: &a}, err) })
	})
}

// async does what a command asks for and replies when that is done. While too many wait
// for that, the connection is not read.
func (c *conn) async(command string, id uint32, do func(ctx context.Context, trace string, done func(protocol.Frame, error))) {
	c.hub.metrics.commands.WithLabelValues(command).Inc()
	if c.slots == nil {
		c.slots = make(chan struct{}, c.hub.cfg.MaxInFlight)
	}
	slots := c.slots
	slots <- struct{}{}
	ctx, span := c.startSpan("ws " + command)
	delay, fail := c.hub.deps.Fault.Roll()
	done := func(f protocol.Frame, err error) {
		after(delay, func() {
			f.ID = id
			c.reply(span, f, err)
			<-slots
		})
	}
	if fail {
		done(protocol.Frame{}, protocol.NewError(protocol.CodeInternal, "", "injected fault"))
		return
	}
	do(ctx, span.SpanContext().TraceID().String(), done)
}

// after calls f after a delay, at once where there is none.
func after(d time.Duration, f func()) {
	if d <= 0 {
		f()
		return
	}
	time.AfterFunc(d, f)
}

func (c *conn) reply(span trace.Span, f protocol.Frame, err error) {
	defer span.End()
	if err == nil {
		c.send(f)
		return
	}
	pe, ok := errors.AsType[*protocol.Error](err)
	if !ok {
		pe = protocol.NewError(protocol.CodeInternal, "", "internal error")
	}
	if pe.Code.Status() >= 500 {
		span.SetStatus(codes.Error, err.Error())
		c.hub.deps.Log.Warn("ws command", "user", c.userName, "error", err)
	}
	span.SetAttributes(attribute.String("error.type", string(pe.Code)))
	c.hub.metrics.sendErrors.WithLabelValues(string(pe.Code)).Inc()
	c.fail(f.ID, pe)
}

// startSpan starts the trace of one command. It is a trace of its own, so that one
// connection is not one endless trace, and its id has the color of the connection's
// group, so that it counts for the group.
func (c *conn) startSpan(name string) (context.Context, trace.Span) {
	ctx := baggage.ContextWithBaggage(context.Background(), c.origin.baggage)
	ctx = trace.ContextWithRemoteSpanContext(ctx, c.coloredParent())
	opts := []trace.SpanStartOption{
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(
			attribute.Bool(semconv.Entry, true),
			attribute.String("http.route", name),
			attribute.String("user.id", c.userID),
		),
	}
	if up := c.upgrade.context(); up.IsValid() {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: up}))
	}
	return c.hub.deps.Tracer.Start(ctx, name, opts...)
}

// coloredParent is how a new trace gets an id of our choice: the SDK takes it from a
// parent. The parent's span does not exist.
func (c *conn) coloredParent() trace.SpanContext {
	var tid trace.TraceID
	var sid trace.SpanID
	_, _ = crand.Read(tid[4:]) // never fails
	_, _ = crand.Read(sid[:])
	binary.BigEndian.PutUint32(tid[:4], uint32(c.origin.group.Color))
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: tid, SpanID: sid, TraceFlags: trace.FlagsSampled | trace.FlagsRandom, Remote: true,
	})
}

// resume answers a Resume. The first command decides where a connection starts; a later
// one can only be told that nothing is missing, or that what is cannot be given in order.
func (c *conn) resume(id uint32, r *protocol.Resume) {
	if err := checkResume(r); err != nil {
		c.fail(id, err)
		return
	}
	c.mu.Lock()
	if c.state == waiting {
		c.begin(r, id)
		c.mu.Unlock()
		return
	}
	recovered := c.positions != nil || len(r.Positions) == 0
	for conversation, seq := range r.Positions {
		recovered = recovered && seq == c.positions.At(conversation)
	}
	c.mu.Unlock()
	c.send(protocol.Frame{ID: id, Resumed: &protocol.Resumed{Recovered: recovered}})
}

func checkResume(r *protocol.Resume) *protocol.Error {
	switch {
	case len(r.Positions) > maxPositions:
		return protocol.NewError(protocol.CodeTooLarge, "positions", "too many positions")
	case len(r.Token) > 64 || len(r.Epoch) > 64:
		return protocol.NewError(protocol.CodeInvalidArgument, "token", "token or epoch is too long")
	}
	for conversation, seq := range r.Positions {
		if err := chat.CheckConversationID("positions", conversation); err != nil {
			return err
		}
		if seq < 0 {
			return protocol.NewError(protocol.CodeInvalidArgument, "positions", "a position must not be negative")
		}
	}
	return nil
}

// mayCommand takes a token for a command.
func (c *conn) mayCommand() bool {
	l := c.hub.limits.Load()
	return c.commands.Take(time.Now(), l.CommandRate, l.CommandBurst)
}
