package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
)

// Subprotocols of a WebSocket (RFC 6455, 1.9). A client that names none speaks JSON.
const (
	JSON     = "tracegate.chat.v1.json"
	Protobuf = "tracegate.chat.v1.proto"
)

// AppendFrame appends a frame in protobuf behind its length. The same bytes behind
// [SubscribeTag] are a SubscribeResponse, so that a frame is encoded once for both.
func AppendFrame(b []byte, f protocol.Frame) []byte {
	m := Frame(f)
	b = binary.AppendUvarint(b, uint64(proto.Size(m)))
	b, _ = proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m) // fails for a required field that is missing, and there is none
	return b
}

// SubscribeTag begins field 1 of SubscribeResponse.
const SubscribeTag = 1<<3 | byte(protowire.BytesType)

// AppendCommand appends a command in protobuf behind its length.
func AppendCommand(b []byte, c protocol.Command) []byte {
	m := commandOf(c)
	b = binary.AppendUvarint(b, uint64(proto.Size(m)))
	b, _ = proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(b, m) // as above
	return b
}

// NextCommand reads the first command of b and returns what follows it. Fields that it
// does not know are refused, as in JSON.
func NextCommand(b []byte) (c protocol.Command, rest []byte, err error) {
	one, rest, err := next(b)
	if err != nil {
		return c, nil, err
	}
	m := &chatv1.Command{}
	if err := (proto.UnmarshalOptions{RecursionLimit: MaxDepth}).Unmarshal(one, m); err != nil {
		return c, nil, errors.New("frame is not a command")
	}
	if unknown := Unknown(m); unknown != 0 {
		return c, nil, fmt.Errorf("frame is not a command: there is no field %d", unknown)
	}
	return command(m), rest, nil
}

// NextFrame reads the first frame of b and returns what follows it.
func NextFrame(b []byte) (f protocol.Frame, rest []byte, err error) {
	one, rest, err := next(b)
	if err != nil {
		return f, nil, err
	}
	m := &chatv1.Frame{}
	if err := proto.Unmarshal(one, m); err != nil {
		return f, nil, fmt.Errorf("decode frame: %w", err)
	}
	return FrameOf(m), rest, nil
}

func next(b []byte) (one, rest []byte, err error) {
	n, head := binary.Uvarint(b)
	if head <= 0 || n > uint64(len(b)-head) {
		return nil, nil, errors.New("frame is shorter than it says")
	}
	return b[head : head+int(n)], b[head+int(n):], nil
}

// Frame is a frame as the proto has it.
func Frame(f protocol.Frame) *chatv1.Frame {
	out := &chatv1.Frame{}
	if f.ID != 0 {
		out.Id = &f.ID
	}
	switch {
	case f.Error != nil:
		out.Frame = &chatv1.Frame_Error{Error: Error(f.Error)}
	case f.Accepted != nil:
		out.Frame = &chatv1.Frame_Accepted{Accepted: Accepted(*f.Accepted)}
	case f.Resumed != nil:
		out.Frame = &chatv1.Frame_Resumed{Resumed: &chatv1.Resumed{Recovered: f.Resumed.Recovered, Replayed: int32(f.Resumed.Replayed)}}
	case f.Pong != nil:
		out.Frame = &chatv1.Frame_Pong{Pong: &chatv1.Ping{}}
	case f.Hello != nil:
		h := f.Hello
		out.Frame = &chatv1.Frame_Hello{Hello: &chatv1.Hello{
			User: h.User, Session: h.Session, Epoch: h.Epoch, Resume: h.Resume, Group: h.Group, Pool: h.Pool, Node: h.Node,
		}}
	case f.Message != nil:
		out.Frame = &chatv1.Frame_Message{Message: Message(*f.Message)}
	case f.Receipt != nil:
		out.Frame = &chatv1.Frame_Receipt{Receipt: Receipt(*f.Receipt)}
	case f.Typing != nil:
		out.Frame = &chatv1.Frame_Typing{Typing: &chatv1.Typing{Conversation: f.Typing.Conversation, User: optional(f.Typing.User)}}
	case f.Friend != nil:
		out.Frame = &chatv1.Frame_Friend{Friend: &chatv1.FriendChange{User: f.Friend.User, State: f.Friend.State}}
	case f.Reconnect != nil:
		r := f.Reconnect
		out.Frame = &chatv1.Frame_Reconnect{Reconnect: &chatv1.Reconnect{DelayMs: r.DelayMS, GraceMs: r.GraceMS, Resume: r.Resume, Reason: r.Reason}}
	}
	return out
}

// FrameOf is the other way round.
func FrameOf(f *chatv1.Frame) protocol.Frame {
	out := protocol.Frame{ID: f.GetId()}
	switch f := f.GetFrame().(type) {
	case *chatv1.Frame_Error:
		e := f.Error
		out.Error = &protocol.Error{Code: protocol.Code(e.GetCode()), Message: e.GetMessage(), Field: e.GetField(), Temporary: e.GetTemporary()}
	case *chatv1.Frame_Accepted:
		out.Accepted = &protocol.Accepted{ClientID: f.Accepted.GetClientId(), TraceID: f.Accepted.GetTraceId()}
	case *chatv1.Frame_Resumed:
		out.Resumed = &protocol.Resumed{Recovered: f.Resumed.GetRecovered(), Replayed: int(f.Resumed.GetReplayed())}
	case *chatv1.Frame_Pong:
		out.Pong = &protocol.Ping{}
	case *chatv1.Frame_Hello:
		h := f.Hello
		out.Hello = &protocol.Hello{
			User: h.GetUser(), Session: h.GetSession(), Epoch: h.GetEpoch(), Resume: h.GetResume(), Group: h.GetGroup(), Pool: h.GetPool(), Node: h.GetNode(),
		}
	case *chatv1.Frame_Message:
		m := MessageOf(f.Message)
		out.Message = &m
	case *chatv1.Frame_Receipt:
		r := f.Receipt
		out.Receipt = &protocol.Receipt{Conversation: r.GetConversation(), User: r.GetUser(), Read: r.GetRead(), Delivered: r.GetDelivered()}
	case *chatv1.Frame_Typing:
		out.Typing = &protocol.Typing{Conversation: f.Typing.GetConversation(), User: f.Typing.GetUser()}
	case *chatv1.Frame_Friend:
		out.Friend = &protocol.Friend{User: f.Friend.GetUser(), State: f.Friend.GetState()}
	case *chatv1.Frame_Reconnect:
		r := f.Reconnect
		out.Reconnect = &protocol.Reconnect{DelayMS: r.GetDelayMs(), GraceMS: r.GetGraceMs(), Resume: r.GetResume(), Reason: r.GetReason()}
	}
	return out
}

func command(m *chatv1.Command) protocol.Command {
	out := protocol.Command{ID: m.GetId()}
	switch m := m.GetCommand().(type) {
	case *chatv1.Command_Send:
		v := SendOf(m.Send)
		out.Send = &v
	case *chatv1.Command_Edit:
		v := EditOf(m.Edit)
		out.Edit = &v
	case *chatv1.Command_Recall:
		v := RecallOf(m.Recall)
		out.Recall = &v
	case *chatv1.Command_React:
		v := ReactOf(m.React)
		out.React = &v
	case *chatv1.Command_Unreact:
		v := ReactOf(m.Unreact)
		out.Unreact = &v
	case *chatv1.Command_Mark:
		v := MarkOf(m.Mark)
		out.Mark = &v
	case *chatv1.Command_Typing:
		out.Typing = &protocol.Typing{Conversation: m.Typing.GetConversation(), User: m.Typing.GetUser()}
	case *chatv1.Command_Resume:
		v := ResumeOf(m.Resume)
		out.Resume = &v
	case *chatv1.Command_Ping:
		out.Ping = &protocol.Ping{}
	}
	return out
}

func commandOf(c protocol.Command) *chatv1.Command {
	out := &chatv1.Command{Id: c.ID}
	switch {
	case c.Send != nil:
		out.Command = &chatv1.Command_Send{Send: &chatv1.SendMessageRequest{Conversation: c.Send.Conversation, ClientId: c.Send.ClientID, Text: c.Send.Text, ReplyTo: c.Send.ReplyTo, File: optional(c.Send.File)}}
	case c.Edit != nil:
		out.Command = &chatv1.Command_Edit{Edit: &chatv1.EditMessageRequest{Conversation: c.Edit.Conversation, Seq: c.Edit.Seq, ClientId: c.Edit.ClientID, Text: c.Edit.Text}}
	case c.Recall != nil:
		out.Command = &chatv1.Command_Recall{Recall: &chatv1.RecallMessageRequest{Conversation: c.Recall.Conversation, Seq: c.Recall.Seq}}
	case c.React != nil:
		out.Command = &chatv1.Command_React{React: &chatv1.AddReactionRequest{Conversation: c.React.Conversation, Seq: c.React.Seq, Emoji: c.React.Emoji, ClientId: c.React.ClientID}}
	case c.Unreact != nil:
		out.Command = &chatv1.Command_Unreact{Unreact: &chatv1.RemoveReactionRequest{Conversation: c.Unreact.Conversation, Seq: c.Unreact.Seq, Emoji: c.Unreact.Emoji, ClientId: c.Unreact.ClientID}}
	case c.Mark != nil:
		out.Command = &chatv1.Command_Mark{Mark: &chatv1.MarkRequest{Conversation: c.Mark.Conversation, Read: c.Mark.Read, Delivered: c.Mark.Delivered}}
	case c.Typing != nil:
		out.Command = &chatv1.Command_Typing{Typing: &chatv1.Typing{Conversation: c.Typing.Conversation, User: optional(c.Typing.User)}}
	case c.Resume != nil:
		out.Command = &chatv1.Command_Resume{Resume: &chatv1.Resume{Token: optional(c.Resume.Token), Epoch: c.Resume.Epoch, Positions: c.Resume.Positions}}
	case c.Ping != nil:
		out.Command = &chatv1.Command_Ping{Ping: &chatv1.Ping{}}
	}
	return out
}

// SendOf is what the proto asks to send, as core takes it.
func SendOf(m *chatv1.SendMessageRequest) protocol.Send {
	return protocol.Send{Conversation: m.GetConversation(), ClientID: m.GetClientId(), Text: m.GetText(), ReplyTo: m.GetReplyTo(), File: m.GetFile()}
}

// EditOf is as SendOf.
func EditOf(m *chatv1.EditMessageRequest) protocol.Edit {
	return protocol.Edit{Conversation: m.GetConversation(), Seq: m.GetSeq(), ClientID: m.GetClientId(), Text: m.GetText()}
}

// RecallOf is as SendOf.
func RecallOf(m *chatv1.RecallMessageRequest) protocol.Recall {
	return protocol.Recall{Conversation: m.GetConversation(), Seq: m.GetSeq()}
}

// ReactOf is as SendOf, of what is asked for a reaction or its end.
func ReactOf(m interface {
	GetConversation() string
	GetSeq() int64
	GetEmoji() string
	GetClientId() string
}) protocol.React {
	return protocol.React{Conversation: m.GetConversation(), Seq: m.GetSeq(), Emoji: m.GetEmoji(), ClientID: m.GetClientId()}
}

// MarkOf is as SendOf.
func MarkOf(m *chatv1.MarkRequest) protocol.Mark {
	return protocol.Mark{Conversation: m.GetConversation(), Read: m.GetRead(), Delivered: m.GetDelivered()}
}

// ResumeOf is as SendOf.
func ResumeOf(r *chatv1.Resume) protocol.Resume {
	return protocol.Resume{Token: r.GetToken(), Epoch: r.GetEpoch(), Positions: r.GetPositions()}
}

// Error is an error as the proto has it.
func Error(e *protocol.Error) *chatv1.Error {
	return &chatv1.Error{Code: string(e.Code), Message: e.Message, Field: optional(e.Field), Temporary: e.Temporary}
}

// Accepted is an acknowledgement as the proto has it.
func Accepted(a protocol.Accepted) *chatv1.Accepted {
	return &chatv1.Accepted{ClientId: a.ClientID, TraceId: a.TraceID}
}

// Receipt is a receipt as the proto has it.
func Receipt(r protocol.Receipt) *chatv1.Receipt {
	return &chatv1.Receipt{Conversation: r.Conversation, User: r.User, Read: r.Read, Delivered: r.Delivered}
}

// Message is an entry as the proto has it.
func Message(m protocol.Message) *chatv1.Message {
	out := &chatv1.Message{
		Conversation: m.Conversation, Seq: m.Seq, ClientId: m.ClientID, Sender: m.Sender, Text: m.Text, SentAt: timestamppb.New(m.SentAt), TraceId: m.TraceID,
		ReplyTo: optional(m.ReplyTo), Edited: optional(m.Edited), Recalled: optional(m.Recalled),
	}
	if e := m.Event; e != nil {
		out.Event = &chatv1.Event{Kind: string(e.Kind), Members: e.Members, Role: optional(e.Role), Name: optional(e.Name), Target: optional(e.Target), Emoji: optional(e.Emoji), Count: optional(int32(e.Count))} //nolint:gosec // members are fewer
	}
	for _, r := range m.Reactions {
		out.Reactions = append(out.Reactions, &chatv1.Reaction{Emoji: r.Emoji, Count: int32(r.Count), Mine: optional(r.Mine)}) //nolint:gosec // as above
	}
	if f := m.File; f != nil {
		out.File = &chatv1.File{
			Id: f.ID, Name: f.Name, Type: f.Type, Size: f.Size,
			Width: optional(int32(f.Width)), Height: optional(int32(f.Height)), Thumbnail: optional(f.Thumbnail), //nolint:gosec // what a thumbnail was made of is smaller
		}
	}
	return out
}

// MessageOf is the other way round.
func MessageOf(m *chatv1.Message) protocol.Message {
	out := protocol.Message{
		Conversation: m.GetConversation(), Seq: m.GetSeq(), ClientID: m.GetClientId(), Sender: m.GetSender(), Text: m.GetText(), SentAt: m.GetSentAt().AsTime(), TraceID: m.GetTraceId(),
		ReplyTo: m.GetReplyTo(), Edited: m.GetEdited(), Recalled: m.GetRecalled(),
	}
	if e := m.GetEvent(); e != nil {
		out.Event = &protocol.Event{Kind: protocol.EventKind(e.GetKind()), Members: e.GetMembers(), Role: e.GetRole(), Name: e.GetName(), Target: e.GetTarget(), Emoji: e.GetEmoji(), Count: int(e.GetCount())}
	}
	for _, r := range m.GetReactions() {
		out.Reactions = append(out.Reactions, protocol.Reaction{Emoji: r.GetEmoji(), Count: int(r.GetCount()), Mine: r.GetMine()})
	}
	if f := m.GetFile(); f != nil {
		out.File = &protocol.File{
			ID: f.GetId(), Name: f.GetName(), Type: f.GetType(), Size: f.GetSize(),
			Width: int(f.GetWidth()), Height: int(f.GetHeight()), Thumbnail: f.GetThumbnail(),
		}
	}
	return out
}

// optional is nil for what is left out.
func optional[T comparable](v T) *T {
	var none T
	if v == none {
		return nil
	}
	return &v
}
