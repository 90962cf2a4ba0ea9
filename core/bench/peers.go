//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/centrifugal/centrifuge"
	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"

	"github.com/tracegate/tracegate/core/protocol"
)

// centrifugeServer is a node in memory, as in the library's README: credentials by a
// middleware, each client subscribes to a channel.
func centrifugeServer(name, what string, tuned bool) server {
	return server{
		name: name, what: what,
		wire: wire{
			path: "/connection/websocket", pong: "{}",
			header: func(i int) string { return "X-User: " + user(i).ID + "\r\n" },
			hello: func(i int, room bool) []string {
				return []string{`{"id":1,"connect":{}}`, fmt.Sprintf(`{"id":2,"subscribe":{"channel":%q}}`, store{room: room}.conversation(user(i).ID))}
			},
		},
		start: func(_ context.Context, e env) (http.Handler, publish, error) { return startCentrifuge(e, tuned) },
	}
}

func startCentrifuge(e env, tuned bool) (http.Handler, publish, error) {
	node, err := centrifuge.New(centrifuge.Config{})
	if err != nil {
		return nil, nil, err
	}
	var cfg centrifuge.WebsocketConfig
	if e.room > 0 {
		cfg.PingInterval = -1               // clients wait for their turn and do not answer
		cfg.WriteTimeout = 10 * time.Second // as ours; with 1 s a busy machine loses clients
	}
	if tuned {
		cfg.ReadBufferSize, cfg.UseWriteBufferPool, cfg.ProcessCommandsOffReadLoop = 512, true, true
		node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
			return centrifuge.ConnectReply{WriteDelay: time.Millisecond, WriteWithTimer: true, QueueInitialCap: 1, ReplyWithoutQueue: true}, nil
		})
	}
	node.OnConnect(func(c *centrifuge.Client) {
		c.OnSubscribe(func(_ centrifuge.SubscribeEvent, cb centrifuge.SubscribeCallback) {
			cb(centrifuge.SubscribeReply{}, nil)
		})
		c.OnPublish(func(_ centrifuge.PublishEvent, cb centrifuge.PublishCallback) { cb(centrifuge.PublishReply{}, nil) })
		c.OnDisconnect(func(centrifuge.DisconnectEvent) {})
	})
	if e.room > 0 { // as its documentation says to join nodes
		shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: e.redis, Password: redisPassword})
		if err != nil {
			return nil, nil, err
		}
		broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
		if err != nil {
			return nil, nil, err
		}
		node.SetBroker(broker)
	}
	if err := node.Run(); err != nil {
		return nil, nil, err
	}
	h := centrifuge.NewWebsocketHandler(node, cfg)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx := centrifuge.SetCredentials(r.Context(), &centrifuge.Credentials{UserID: r.Header.Get("X-User")})
			h.ServeHTTP(w, r.WithContext(ctx))
		}), func(m protocol.Message) error {
			data, err := json.Marshal(m)
			if err == nil {
				_, err = node.Publish(m.Conversation, data)
			}
			return err
		}, nil
}

// session is what the two servers below remember of a client.
type peerSession struct {
	user      string
	positions map[string]int64
	send      chan []byte // gorilla only
}

func (s *peerSession) resume(text []byte) (reply []byte, err error) {
	var cmd struct {
		Resume map[string]int64 `json:"resume"`
	}
	if err := json.Unmarshal(text, &cmd); err != nil {
		return nil, err
	}
	s.positions = cmd.Resume
	return []byte(`{"resumed":true}`), nil
}

func simpleWire() wire {
	return wire{
		path:   "/",
		header: func(i int) string { return "X-User: " + user(i).ID + "\r\n" },
		hello: func(i int, room bool) []string {
			return []string{fmt.Sprintf(`{"resume":{%q:1}}`, store{room: room}.conversation(user(i).ID))}
		},
	}
}

// gorillaServer is the usual first version, after gorilla's chat example: a goroutine
// that reads and one that writes from a channel of 256 and pings by a ticker of its own.
func gorillaServer() server {
	return server{
		name: "gorilla", what: "gorilla/websocket, naive: a reader and a writer for each connection, default buffers, a map of sessions", wire: simpleWire(),
		start: func(context.Context, env) (http.Handler, publish, error) {
			return &gorilla{sessions: map[*websocket.Conn]*peerSession{}}, nil, nil
		},
	}
}

type gorilla struct {
	upgrader websocket.Upgrader
	mu       sync.Mutex
	sessions map[*websocket.Conn]*peerSession
}

func (g *gorilla) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := g.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	s := &peerSession{user: r.Header.Get("X-User"), send: make(chan []byte, 256)}
	g.mu.Lock()
	g.sessions[ws] = s
	g.mu.Unlock()
	go g.write(ws, s)
	go g.read(ws, s)
}

func (g *gorilla) read(ws *websocket.Conn, s *peerSession) {
	defer func() {
		g.mu.Lock()
		delete(g.sessions, ws)
		g.mu.Unlock()
		close(s.send)
		ws.Close()
	}()
	ws.SetPongHandler(func(string) error { return ws.SetReadDeadline(time.Now().Add(time.Minute)) })
	for {
		_, text, err := ws.ReadMessage()
		if err != nil {
			return
		}
		reply, err := s.resume(text)
		if err != nil {
			return
		}
		s.send <- reply
	}
}

func (g *gorilla) write(ws *websocket.Conn, s *peerSession) {
	t := time.NewTicker(54 * time.Second)
	defer t.Stop()
	for {
		kind, text, open := websocket.PingMessage, []byte(nil), true
		select {
		case text, open = <-s.send:
			kind = websocket.TextMessage
		case <-t.C:
		}
		if !open || ws.SetWriteDeadline(time.Now().Add(10*time.Second)) != nil || ws.WriteMessage(kind, text) != nil {
			ws.Close()
			return
		}
	}
}

// gwsServer is gws with its default options, as in its README but without compression.
func gwsServer() server {
	return server{
		name: "gws", what: "lxzan/gws, default options, a map of sessions", wire: simpleWire(),
		start: func(context.Context, env) (http.Handler, publish, error) {
			up := gws.NewUpgrader(&gwsEvents{sessions: map[*gws.Conn]*peerSession{}}, &gws.ServerOption{
				Authorize: func(r *http.Request, s gws.SessionStorage) bool { s.Store("user", r.Header.Get("X-User")); return true },
			})
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if socket, err := up.Upgrade(w, r); err == nil {
					go socket.ReadLoop()
				}
			}), nil, nil
		},
	}
}

type gwsEvents struct {
	gws.BuiltinEventHandler
	mu       sync.Mutex
	sessions map[*gws.Conn]*peerSession
}

func (g *gwsEvents) OnOpen(c *gws.Conn) {
	name, _ := c.Session().Load("user")
	user, _ := name.(string)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sessions[c] = &peerSession{user: user}
}

func (g *gwsEvents) OnClose(c *gws.Conn, _ error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.sessions, c)
}

func (g *gwsEvents) OnPing(c *gws.Conn, payload []byte) { _ = c.WritePong(payload) }

func (g *gwsEvents) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	g.mu.Lock()
	s := g.sessions[c]
	g.mu.Unlock()
	if reply, err := s.resume(m.Bytes()); err == nil {
		_ = c.WriteMessage(gws.OpcodeText, reply)
	}
}
