//go:build linux

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/tracegate/tracegate/core/accept"
	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/api"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/deliver"
	"github.com/tracegate/tracegate/core/fanout"
	fanoutembedded "github.com/tracegate/tracegate/core/fanout/embedded"
	"github.com/tracegate/tracegate/core/fault"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/session"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

// ours is core's handler, with authentication, tracing and limits, and behind it the hub
// with the fan-out over Redis: all that core.Run gives a connection. Only the store is
// in memory, since its caches are not a connection's, and nothing is sent.
func ours() server {
	traffic := group.Group{Color: 0x5eed, Env: "prod", Tenant: "public"}
	tokens := account.NewTokens(key(), time.Hour)
	return server{
		name: "ours", what: "core's handler and hub, with Redis; one conversation", redis: true,
		wire: wire{
			path: "/v1/ws", greeted: true,
			header: func(i int) string { // what the edge sends
				token, _, _ := tokens.Issue(user(i), user(i).ID, time.Now().Add(time.Hour), time.Now()) // the key is good
				return fmt.Sprintf("Authorization: Bearer %s\r\n%s: %s\r\nTraceparent: 00-%s%024x-%016x-03\r\nBaggage: %s=%s,%s=%s\r\n", token,
					semconv.HeaderGroup, traffic.ID(), traffic.Color, i+1, i+1, semconv.Env, traffic.Env, semconv.Tenant, traffic.Tenant)
			},
			hello: func(i int, room bool) []string {
				s := store{room: room}
				return []string{fmt.Sprintf(`{"id":1,"resume":{"epoch":"bench","positions":{%q:%d}}}`, s.conversation(user(i).ID), s.head())}
			},
		},
		start: startCore,
	}
}

// key signs the tokens of a run; it keeps no secret.
func key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func user(i int) chat.User {
	return chat.User{ID: fmt.Sprintf("01890000-0000-7000-8000-%012x", i), Name: fmt.Sprintf("user-%d", i), Tenant: "public"}
}

func startCore(ctx context.Context, e env) (http.Handler, publish, error) {
	const pool = semconv.PoolBaseline
	node := fmt.Sprintf("bench-%d", os.Getpid()) // what comes from itself a node passes over
	store, log := store{e.room > 0, roster(e.room)}, e.log
	reg, tracing := prometheus.NewRegistry(), sdktrace.NewTracerProvider()
	cfg := fanout.DefaultConfig()
	cfg.Addrs, cfg.Password = []string{e.redis}, redisPassword
	others, err := fanout.New(cfg, node, reg, log)
	if err != nil {
		return nil, nil, err
	}
	acceptor, faults := accept.New(store, store, accept.Config{Timeout: time.Second}, time.Now), fault.New(time.Now)
	bounds := session.DefaultConfig()
	bounds.AcceptRate, bounds.AcceptBurst = 1e9, 1e9 // they come as fast as they can
	if e.room > 0 {
		bounds.PingEvery, bounds.StaleAfter = time.Hour, 2*time.Hour // clients wait for their turn and do not answer
	}
	hub, err := session.New(bounds, session.Deps{
		Node: node, Pool: pool, History: store, Sender: acceptor, Fanout: others, Fault: faults,
		Tracer: tracing.Tracer("bench"), Registerer: reg, Log: log,
	})
	if err != nil {
		return nil, nil, err
	}
	accounts, err := account.New(account.DefaultConfig(), account.Deps{Key: key(), Now: time.Now, Registerer: reg})
	if err != nil {
		return nil, nil, err
	}
	go func() { _ = others.Run(ctx, hub) }() // these two end with the process
	go func() { _ = hub.Run(ctx) }()
	handler, err := api.New(api.DefaultConfig(), api.Deps{
		Node: node, Pool: pool, Accounts: accounts, History: store, Acceptor: acceptor, Sockets: hub, Presence: others, Fault: faults,
		Healthy: func() bool { return true }, Tracing: tracing, Registerer: reg, Now: time.Now, Log: log,
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	})
	if err != nil {
		return nil, nil, err
	}
	deliverer, err := deliver.New(nil, hub, others, reg, log) // nothing is stored
	return handler, func(m protocol.Message) error {
		deliverer.Announce(chat.Numbered{
			Record: chat.Record{Conversation: m.Conversation, ClientID: m.ClientID, Sender: m.Sender, Text: m.Text, SentAt: m.SentAt, TraceID: m.TraceID},
			Seq:    m.Seq, Roster: store.roster,
		})
		return nil
	}, err
}

// roster is that of the room.
func roster(members int) *chat.Roster {
	var all []chat.Member
	for i := range members {
		all = append(all, chat.Member{ID: user(i).ID, Name: user(i).Name})
	}
	return chat.NewRoster(true, 1, all)
}

// store has one conversation for each user, with one message that all have seen.
type store struct {
	room   bool
	roster *chat.Roster
}

// conversation is the one that a user is in; it has sixteen members.
func (s store) conversation(userID string) string {
	if s.room {
		return roomName
	}
	return strings.Clone(userID[:len(userID)-1])
}

const roomName = "room"

func (s store) head() int64 {
	if s.room {
		return 0
	}
	return 1
}

func (s store) Heads(_ context.Context, users ...string) (map[string]map[string]chat.Span, error) {
	out := make(map[string]map[string]chat.Span, len(users))
	for _, u := range users {
		out[u] = map[string]chat.Span{s.conversation(u): {Last: s.head()}}
	}
	return out, nil
}

func (store) Messages(context.Context, string, string, int64, int) ([]protocol.Message, error) {
	return nil, nil
}

func (store) Epoch() string { return "bench" }

func (store) MessagesBefore(context.Context, string, string, int64, int) ([]protocol.Message, error) {
	return nil, nil
}

func (s store) Reactions(context.Context, string, string, int64) ([]protocol.Reaction, error) {
	return nil, errors.New("nothing is reacted to here")
}

func (s store) Standing(context.Context, string) (chat.Standing, error) {
	if !s.room {
		return chat.Standing{}, chat.ErrNotFound
	}
	return chat.Standing{Roster: s.roster, Count: len(s.roster.Members)}, nil
}

func (store) StandingOf(context.Context, string, string) (chat.Standing, error) {
	return chat.Standing{}, chat.ErrNotFound
}

func (store) Target(context.Context, string, string, int64) (chat.Target, error) {
	return chat.Target{}, chat.ErrNotFound
}

func (store) File(context.Context, string, string) (chat.File, error) {
	return chat.File{}, chat.ErrNotFound
}

func (store) Full() bool { return false }

func (store) Accept(_ context.Context, _ chat.Record, done func(error)) { done(nil) }

const redisPassword = "bench"

// runRedis runs the embedded Redis in a process of its own.
func runRedis(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	return fanoutembedded.Run(ctx, fanoutembedded.Config{Listen: "127.0.0.1:0", Password: redisPassword}, func(addr string) {
		go func() {
			defer stop()
			_ = obey(addr, nil) // it ends with its input
		}()
	})
}
