package chat_test

import (
	"testing"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

func TestAct(t *testing.T) {
	room := func(s chat.FriendState) chat.Acquaintance { return chat.Acquaintance{State: s, HaveRoom: true} }
	blocks, blocked := room(chat.Strangers), room(chat.Incoming)
	blocks.Blocks, blocked.Blocked = true, true
	for _, c := range []struct {
		name string
		a    chat.Acquaintance
		act  chat.FriendAct
		want chat.FriendState
		code protocol.Code
	}{
		{"ask", room(chat.Strangers), chat.AskFriend, chat.Outgoing, ""},
		{"ask again", room(chat.Outgoing), chat.AskFriend, chat.Outgoing, ""},
		{"ask who has asked", room(chat.Incoming), chat.AskFriend, chat.Friends, ""},
		{"ask a friend", room(chat.Friends), chat.AskFriend, chat.Friends, ""},
		{"ask without room", chat.Acquaintance{State: chat.Strangers}, chat.AskFriend, chat.Strangers, protocol.CodePermissionDenied},
		{"ask whom one blocks", blocks, chat.AskFriend, chat.Strangers, protocol.CodePermissionDenied},
		{"ask who blocks", blocked, chat.AskFriend, chat.Incoming, protocol.CodePermissionDenied},
		{"accept", chat.Acquaintance{State: chat.Incoming}, chat.AcceptFriend, chat.Friends, ""},
		{"accept again", room(chat.Friends), chat.AcceptFriend, chat.Friends, ""},
		{"accept nothing", room(chat.Strangers), chat.AcceptFriend, chat.Strangers, protocol.CodeNotFound},
		{"accept one's own", room(chat.Outgoing), chat.AcceptFriend, chat.Outgoing, protocol.CodeNotFound},
		{"accept who blocks", blocked, chat.AcceptFriend, chat.Incoming, protocol.CodePermissionDenied},
		{"decline", room(chat.Incoming), chat.EndFriend, chat.Strangers, ""},
		{"withdraw", room(chat.Outgoing), chat.EndFriend, chat.Strangers, ""},
		{"remove", blocked, chat.EndFriend, chat.Strangers, ""},
	} {
		got, err := c.a.Act(c.act)
		code := protocol.Code("")
		if err != nil {
			code = err.Code
		}
		if got != c.want || code != c.code {
			t.Errorf("%s: %s, %v", c.name, got, err)
		}
	}
	for _, s := range []chat.FriendState{chat.Strangers, chat.Outgoing, chat.Incoming, chat.Friends} {
		if s.Mirror().Mirror() != s {
			t.Errorf("%s is not its mirror's mirror", s)
		}
	}
}
