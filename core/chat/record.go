package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
)

// recordVersion is the newest version that this code reads and writes. A reader refuses
// a newer one: it would have to guess what it cannot see. Plain messages are still
// written as version 1, so that processes of both versions work side by side as long as
// nobody uses what is new.
const recordVersion = 5

// maxMicros is the end of the year 9999, the last that RFC 3339 can write.
const maxMicros = 253402300799_999999

// ErrRecord says that bytes of the log are not a record that can be stored. Such a
// record will never become storable, so it belongs into the dead-letter topic.
var ErrRecord = errors.New("not a storable record")

// encoded is the encoding. JSON, because a record is read by people in an incident
// more often than its size matters; the text is most of it either way. What follows
// TraceID came with version 2, File with version 3, Emoji with version 4; version 5 has
// groups that open and close.
type encoded struct {
	V            int             `json:"v"`
	Conversation string          `json:"conversation"`
	ClientID     string          `json:"client_id"`
	SenderID     string          `json:"sender_id"`
	Sender       string          `json:"sender"`
	Text         string          `json:"text"`
	SentAtMicros int64           `json:"sent_at_us"`
	TraceID      string          `json:"trace_id,omitempty"`
	Kind         string          `json:"kind,omitempty"`
	ReplyTo      int64           `json:"reply_to,omitempty"`
	Target       int64           `json:"target,omitempty"`
	Members      []encodedMember `json:"members,omitempty"`
	Role         string          `json:"role,omitempty"`
	Name         string          `json:"name,omitempty"`
	File         string          `json:"file,omitempty"`
	Emoji        string          `json:"emoji,omitempty"`
}

type encodedMember struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// AppendRecord appends the encoding of r to dst.
func AppendRecord(dst []byte, r Record) []byte {
	v := encoded{
		V: 1, Conversation: r.Conversation, ClientID: r.ClientID,
		SenderID: r.SenderID, Sender: r.Sender, Text: r.Text,
		SentAtMicros: r.SentAt.UnixMicro(), TraceID: r.TraceID,
		Kind: string(r.Kind), ReplyTo: r.ReplyTo, Target: r.Target, Name: r.Name, File: r.File, Emoji: r.Emoji,
	}
	for _, m := range r.Members {
		v.Members = append(v.Members, encodedMember{ID: m.ID, Name: m.Name})
	}
	if r.Kind == protocol.EventRole {
		v.Role = r.Role.String()
	}
	switch {
	case isOpening(r.Kind):
		v.V = 5
	case isReaction(r.Kind):
		v.V = 4
	case r.File != "":
		v.V = 3
	case r.Kind != "" || r.ReplyTo != 0:
		v.V = 2
	}
	b, _ := json.Marshal(v) // a struct of strings and integers always encodes
	return append(dst, b...)
}

// DecodeRecord reads what AppendRecord wrote and checks it as strictly as if a client
// had sent it, for whoever may write to the topic may write anything. All its errors
// wrap ErrRecord.
func DecodeRecord(b []byte) (Record, error) {
	var v encoded
	if err := json.Unmarshal(b, &v); err != nil {
		return Record{}, fmt.Errorf("%w: decode: %w", ErrRecord, err)
	}
	if v.V < 1 || v.V > recordVersion {
		return Record{}, fmt.Errorf("%w: version %d, this process knows %d", ErrRecord, v.V, recordVersion)
	}
	r := Record{
		Kind: protocol.EventKind(v.Kind), Conversation: v.Conversation, ClientID: v.ClientID, SenderID: v.SenderID, Sender: v.Sender,
		Text: v.Text, TraceID: v.TraceID, ReplyTo: v.ReplyTo, Target: v.Target, Name: v.Name, File: v.File, Emoji: v.Emoji,
	}
	if v.V == 1 && (r.Kind != "" || r.ReplyTo != 0) {
		return Record{}, fmt.Errorf("%w: version 1 has only plain messages", ErrRecord)
	}
	if v.V < 3 && r.File != "" {
		return Record{}, fmt.Errorf("%w: version %d has no files", ErrRecord, v.V)
	}
	if v.V < 4 && isReaction(r.Kind) {
		return Record{}, fmt.Errorf("%w: version %d has no reactions", ErrRecord, v.V)
	}
	if v.V < 5 && isOpening(r.Kind) {
		return Record{}, fmt.Errorf("%w: version %d has no open groups", ErrRecord, v.V)
	}
	for _, m := range v.Members {
		r.Members = append(r.Members, Member{ID: m.ID, Name: m.Name})
	}
	if v.Role != "" || r.Kind == protocol.EventRole {
		role, ok := ParseRole(v.Role)
		if !ok || r.Kind != protocol.EventRole {
			return Record{}, fmt.Errorf("%w: role is not one", ErrRecord)
		}
		r.Role = role
	}
	if v.SentAtMicros < 0 || v.SentAtMicros > maxMicros {
		return Record{}, fmt.Errorf("%w: sent_at_us is no time that JSON can say", ErrRecord)
	}
	r.SentAt = time.UnixMicro(v.SentAtMicros).UTC()
	if err := CheckRecord(r); err != nil {
		return Record{}, fmt.Errorf("%w: %s", ErrRecord, err.Message)
	}
	return r, nil
}

// CheckRecord checks a record on its own, whatever the conversation is like; nil when it
// may be in the log.
func CheckRecord(r Record) *protocol.Error {
	if err := CheckConversationID("conversation", r.Conversation); err != nil {
		return err
	}
	if err := checkID("sender_id", r.SenderID); err != nil {
		return err
	}
	if err := CheckName("sender", r.Sender); err != nil {
		return err
	}
	if len(r.TraceID) > 32 || !only(r.TraceID, isClientIDByte) {
		return invalid("trace_id", "is not an id")
	}
	if err := checkKey(r); err != nil {
		return err
	}
	return checkContent(r)
}

// checkKey keeps the client ids that core makes itself apart from those of clients, which
// have no dot.
func checkKey(r Record) *protocol.Error {
	if r.Kind == "" || r.Kind == protocol.EventEdited {
		return CheckClientID(r.ClientID)
	}
	ok := func(b byte) bool { return b == '.' || isClientIDByte(b) }
	if len(r.ClientID) < 1 || len(r.ClientID) > MaxRecordID || !only(r.ClientID, ok) {
		return invalid("client_id", "must be 1 to %d of A-Z a-z 0-9 _ - .", MaxRecordID)
	}
	return nil
}

// checkContent checks the fields of a kind, and that there are no others.
func checkContent(r Record) *protocol.Error {
	var has Record // the fields that the kind may have
	switch r.Kind {
	case "":
		has.Text, has.ReplyTo, has.File = r.Text, r.ReplyTo, r.File
		if r.ReplyTo < 0 {
			return invalid("reply_to", "must not be negative")
		}
		if r.File != "" {
			if err := checkID("file", r.File); err != nil {
				return err
			}
		}
	case protocol.EventEdited:
		has.Text, has.Target = r.Text, r.Target
	case protocol.EventRecalled:
		has.Target = r.Target
	case protocol.EventReacted, protocol.EventUnreacted:
		has.Target, has.Emoji = r.Target, r.Emoji
		if err := CheckEmoji(r.Emoji); err != nil {
			return err
		}
	case protocol.EventAdded, protocol.EventRemoved, protocol.EventRole:
		has.Members, has.Role = r.Members, r.Role
		if err := checkMembers(r); err != nil {
			return err
		}
	case protocol.EventRenamed:
		has.Name = r.Name
		if err := CheckGroupName(r.Name); err != nil {
			return err
		}
	case protocol.EventOpened, protocol.EventClosed:
	default:
		return invalid("kind", "is not one that may be in the log")
	}
	if r.Kind == protocol.EventEdited || r.Kind == "" && (r.File == "" || r.Text != "") {
		if err := CheckText(r.Text); err != nil {
			return err
		}
	}
	if (r.Kind == protocol.EventEdited || r.Kind == protocol.EventRecalled || isReaction(r.Kind)) && r.Target < 1 {
		return invalid("seq", "must be that of a message")
	}
	if r.Text != has.Text || r.ReplyTo != has.ReplyTo || r.Target != has.Target || len(r.Members) != len(has.Members) || r.Name != has.Name || r.Open || r.File != has.File || r.Emoji != has.Emoji {
		return invalid("kind", "%q has a field that it may not have", r.Kind)
	}
	return nil
}

func isOpening(kind protocol.EventKind) bool {
	return kind == protocol.EventOpened || kind == protocol.EventClosed
}

func checkMembers(r Record) *protocol.Error {
	most := 1
	if r.Kind == protocol.EventAdded {
		most = MaxAdded
	}
	if len(r.Members) < 1 || len(r.Members) > most {
		return invalid("members", "must be 1 to %d", most)
	}
	for _, m := range r.Members {
		if err := checkID("members", m.ID); err != nil {
			return err
		}
		if err := CheckName("members", m.Name); err != nil {
			return err
		}
	}
	return nil
}

func checkID(field, id string) *protocol.Error {
	if id == "" || len(id) > 64 || !only(id, isClientIDByte) {
		return invalid(field, "is not an id")
	}
	return nil
}
