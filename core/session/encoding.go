package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/protocol/wire"
)

// encode writes a frame as the client reads it.
func (c *conn) encode(f protocol.Frame) []byte {
	if c.binary {
		return wire.AppendFrame(nil, f)
	}
	b, _ := json.Marshal(f) // strings, numbers and a valid time always encode
	return b
}

// coded is a push, which comes in JSON, as the client reads it.
func (c *conn) coded(frame []byte) []byte {
	if !c.binary {
		return frame
	}
	return c.hub.recoder.protobuf(frame)
}

// opcode is the kind of the WebSocket messages that carry frames.
func (c *conn) opcode() int {
	if c.binary {
		return websocket.BinaryMessage
	}
	return websocket.TextMessage
}

// recoder writes pushes anew in protobuf, each once for all who get it: its members are
// told one after the other, so remembering the newest is enough. Pushes travel between
// processes in JSON, so that most clients' frames are never decoded on their way, and a
// process without connections in protobuf pays nothing for there being some elsewhere.
type recoder struct {
	newest atomic.Pointer[recoded]
}

type recoded struct{ from, to []byte }

func (r *recoder) protobuf(frame []byte) []byte {
	if newest := r.newest.Load(); newest != nil && bytes.Equal(newest.from, frame) {
		return newest.to
	}
	var f protocol.Frame
	if err := json.Unmarshal(frame, &f); err != nil {
		return nil // nothing of ours is not a frame; an empty one says nothing
	}
	out := wire.AppendFrame(nil, f)
	r.newest.Store(&recoded{from: frame, to: out})
	return out
}

// decode handles a message: commands in JSON with nothing or white space between, or in
// protobuf, each behind its length. Those before a mistake are handled too, unless the
// text is refused as a whole: it is not UTF-8, or too deep.
func (c *conn) decode(kind int, b []byte) {
	switch {
	case c.binary && kind != websocket.BinaryMessage:
		c.refuse(protocol.CloseProtocol, "frame must be binary")
	case c.binary:
		c.readProtobuf(b)
	case kind != websocket.TextMessage:
		c.refuse(protocol.CloseProtocol, "frame must be text")
	case !utf8.Valid(b): // the JSON decoder would replace what is not
		c.refuse(websocket.CloseInvalidFramePayloadData, "frame is not valid UTF-8")
	case wire.TooDeep(b):
		c.refuse(protocol.CloseProtocol, fmt.Sprintf("frame has more than %d objects and lists in each other", wire.MaxDepth))
	default:
		c.readJSON(b)
	}
}

func (c *conn) readJSON(b []byte) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	for first := true; ; first = false {
		var cmd protocol.Command
		err := d.Decode(&cmd)
		switch {
		case errors.Is(err, io.EOF) && !first:
			return
		case err != nil:
			c.refuse(protocol.CloseProtocol, "frame is not a command: "+err.Error())
			return
		case !c.handle(cmd):
			return
		}
	}
}

func (c *conn) readProtobuf(b []byte) {
	for first := true; first || len(b) > 0; first = false {
		cmd, rest, err := wire.NextCommand(b)
		if err != nil {
			c.refuse(protocol.CloseProtocol, err.Error())
			return
		}
		if !c.handle(cmd) {
			return
		}
		b = rest
	}
}
