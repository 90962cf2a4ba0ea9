package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// recordVersion is the version that this code writes. A reader refuses a newer one:
// it would have to guess what it cannot see.
const recordVersion = 1

// maxMicros is the end of the year 9999, the last that RFC 3339 can write.
const maxMicros = 253402300799_999999

// ErrRecord says that bytes of the log are not a message that can be stored. Such a
// record will never become storable, so it belongs into the dead-letter topic.
var ErrRecord = errors.New("not a storable record")

// recordV1 is the encoding. JSON, because a record is read by people in an incident
// more often than its size matters; the text is most of it either way.
type recordV1 struct {
	V            int    `json:"v"`
	Conversation string `json:"conversation"`
	ClientID     string `json:"client_id"`
	SenderID     string `json:"sender_id"`
	Sender       string `json:"sender"`
	Text         string `json:"text"`
	SentAtMicros int64  `json:"sent_at_us"`
	TraceID      string `json:"trace_id,omitempty"`
}

// AppendRecord appends the encoding of r to dst.
func AppendRecord(dst []byte, r Record) []byte {
	// A struct of strings and integers always encodes.
	b, _ := json.Marshal(recordV1{
		V: recordVersion, Conversation: r.Conversation, ClientID: r.ClientID,
		SenderID: r.SenderID, Sender: r.Sender, Text: r.Text,
		SentAtMicros: r.SentAt.UnixMicro(), TraceID: r.TraceID,
	})
	return append(dst, b...)
}

// DecodeRecord reads what AppendRecord wrote and checks it as strictly as if a client
// had sent it, for whoever may write to the topic may write anything. All its errors
// wrap ErrRecord.
func DecodeRecord(b []byte) (Record, error) {
	var v recordV1
	if err := json.Unmarshal(b, &v); err != nil {
		return Record{}, fmt.Errorf("%w: decode: %w", ErrRecord, err)
	}
	if v.V != recordVersion {
		return Record{}, fmt.Errorf("%w: version %d, this process knows %d", ErrRecord, v.V, recordVersion)
	}
	if err := CheckSend(v.Conversation, v.ClientID, v.Text); err != nil {
		return Record{}, fmt.Errorf("%w: %s", ErrRecord, err.Message)
	}
	if err := CheckName("sender", v.Sender); err != nil {
		return Record{}, fmt.Errorf("%w: %s", ErrRecord, err.Message)
	}
	if v.SenderID == "" || len(v.SenderID) > 64 || !only(v.SenderID, isClientIDByte) {
		return Record{}, fmt.Errorf("%w: sender_id is not an id", ErrRecord)
	}
	if len(v.TraceID) > 32 || !only(v.TraceID, isClientIDByte) {
		return Record{}, fmt.Errorf("%w: trace_id is not an id", ErrRecord)
	}
	if v.SentAtMicros < 0 || v.SentAtMicros > maxMicros {
		return Record{}, fmt.Errorf("%w: sent_at_us is no time that JSON can say", ErrRecord)
	}
	return Record{
		Conversation: v.Conversation, ClientID: v.ClientID, SenderID: v.SenderID, Sender: v.Sender,
		Text: v.Text, SentAt: time.UnixMicro(v.SentAtMicros).UTC(), TraceID: v.TraceID,
	}, nil
}
