package client_test

import (
	"context"
	"fmt"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/client"
	"github.com/tracegate/tracegate/edge/client/coretest"
)

// Two people talk: one by WebSocket, the other listens.
func Example() {
	server := coretest.New()
	defer server.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	cfg := client.DefaultConfig()
	cfg.Address, cfg.Host = server.URL, "payment.localhost"
	c, err := client.New(cfg)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	users := map[string]*client.User{}
	for _, name := range []string{"alice", "bob"} {
		if _, _, err := c.Register(ctx, name, "correct horse"); err != nil {
			fmt.Println(err)
		}
		if users[name], _, err = c.Login(ctx, name, "correct horse"); err != nil {
			fmt.Println(err)
		}
	}
	talk, _, _ := users["alice"].Open(ctx, "bob")

	heard := make(chan protocol.Message, 1)
	bob := users["bob"].Session(client.SessionConfig{
		Positions: map[string]int64{talk.ID: 0},
		OnMessage: func(m protocol.Message) { heard <- m },
	})
	alice := users["alice"].Session(client.SessionConfig{})
	go bob.Run(ctx)
	go alice.Run(ctx)

	// The client id is the sender's; repeating a call with it is harmless.
	_, _, err = alice.Send(ctx, protocol.Send{Conversation: talk.ID, ClientID: "1", Text: "hello"})
	m := <-heard
	fmt.Println(err, m.Sender, m.Seq, m.Text)
	// Output: <nil> alice 1 hello
}
