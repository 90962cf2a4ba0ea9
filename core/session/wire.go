package session

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
)

// quiet is a connection that gorilla reads from and, after the handshake, does not write
// to: it thinks that it does. We write all frames ourselves, in order; gorilla's own
// close frame, after a frame that breaks the rules, could come before answers that are
// queued.
//
// It embeds a pointer and no interface, so that Read is a jump and needs no stack of its
// own: with net.Conn here a reader's stack had 4 KB instead of 2.
type quiet struct {
	*net.TCPConn
	mute bool
}

func (q *quiet) Write(b []byte) (int, error) {
	if q.mute {
		return len(b), nil
	}
	return q.TCPConn.Write(b)
}

// quieting gives gorilla's upgrade a quiet connection.
type quieting struct {
	http.ResponseWriter
	conn *quiet // once it has been taken over
}

// Hijack implements http.Hijacker.
func (q *quieting) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(q.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok { // TLS ends at the edge
		return nil, nil, errors.Join(errors.New("take over connection: it is not TCP"), conn.Close())
	}
	q.conn = &quiet{TCPConn: tcp}
	return q.conn, rw, nil
}

// appendFrame appends a whole frame of a server: neither masked nor in parts (RFC 6455,
// 5.2). Frames are written without gorilla, which would make a system call for each.
func appendFrame(b []byte, opcode int, payload []byte) []byte {
	b = append(b, 0x80|byte(opcode))
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = append(b, 126, byte(n>>8), byte(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

// borrow returns an empty buffer for one frame that is read, or for frames that are
// written together, so that no connection has one of its own.
func (h *Hub) borrow() *bytes.Buffer {
	if b, ok := h.buffers.Get().(*bytes.Buffer); ok {
		b.Reset()
		return b
	}
	return new(bytes.Buffer)
}

func (h *Hub) giveBack(b *bytes.Buffer) {
	if b.Cap() <= 4*writeSize { // what one large frame needed is not kept
		h.buffers.Put(b)
	}
}
