package session_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
)

// Bits and opcodes of a frame's first byte (RFC 6455, 5.2).
const (
	fin  = 0x80
	rsv1 = 0x40
	rsv2 = 0x20
	rsv3 = 0x10

	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
)

// frame is what a well-behaved client sends: masked, with a length of the shortest form.
func frame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = append(b, 0x80|126, byte(n>>8), byte(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	mask := []byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, mask...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func closeFrame(code int, reason string) []byte {
	return frame(fin|opClose, string(websocket.FormatCloseMessage(code, reason)))
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// raw is a client that writes bytes and reads frames, and so sees what a library hides.
type raw struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// dialRaw connects and reads the Hello.
func dialRaw(t *testing.T, r *rig, header string) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	c := &raw{t: t, conn: conn, r: bufio.NewReader(conn)}
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", header)
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(err, resp)
	}
	if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != "" {
		t.Errorf("extensions %q are agreed on", got)
	}
	if op, payload, err := c.read(); err != nil || op != opText || !strings.Contains(payload, `"hello"`) {
		t.Fatalf("first frame: %v %q %v", op, payload, err)
	}
	return c
}

// read returns the next frame, which must be one that a server may send.
func (c *raw) read() (op byte, payload string, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(c.r, head); err != nil {
		return 0, "", err
	}
	size := int(head[1])
	switch {
	case head[0]&(fin|rsv1|rsv2|rsv3) != fin:
		c.t.Errorf("the server sends a part or reserved bits: %x", head[0])
	case head[1]&0x80 != 0:
		c.t.Error("the server masks")
	case size == 126:
		more := make([]byte, 2)
		if _, err := io.ReadFull(c.r, more); err != nil {
			return 0, "", err
		}
		if size = int(binary.BigEndian.Uint16(more)); size < 126 {
			c.t.Errorf("length %d is not in its shortest form", size)
		}
	case size == 127:
		c.t.Fatal("the server sends an enormous frame")
	}
	body := make([]byte, size)
	_, err = io.ReadFull(c.r, body)
	return head[0] & 0xf, string(body), err
}

// told reads to the end of the connection and says what came, in short: what commands
// were answered, pongs and their payloads, and the close frame with its code.
func (c *raw) told() string {
	c.t.Helper()
	var out []string
	for {
		op, payload, err := c.read()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				out = append(out, "reset") // whoever is reset may have lost what was said before
			}
			return strings.Join(out, " ")
		}
		switch op {
		case opText:
			out = append(out, answered(payload))
		case opPong:
			out = append(out, "pong:"+payload)
		case opClose:
			code := "none"
			if len(payload) >= 2 {
				code = fmt.Sprint(binary.BigEndian.Uint16([]byte(payload)))
			}
			out = append(out, "close:"+code)
		default:
			out = append(out, fmt.Sprintf("opcode %d", op))
		}
	}
}

func answered(payload string) string {
	var f protocol.Frame
	if err := json.Unmarshal([]byte(payload), &f); err != nil {
		return "garbage"
	}
	switch {
	case f.Accepted != nil:
		return "accepted"
	case f.Pong != nil:
		return "answer"
	case f.Error != nil:
		return "error"
	default:
		return "push"
	}
}

// write may fail once the server has closed.
func (c *raw) write(b []byte, chop bool) {
	for chop && len(b) > 1 {
		_, _ = c.conn.Write(b[:1])
		b = b[1:]
	}
	_, _ = c.conn.Write(b)
}
