//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// wire is how clients open a session on a server: the upgrade, and text frames that are
// each answered by one.
type wire struct {
	path    string
	header  func(client int) string
	greeted bool // the server speaks first
	hello   func(client int, room bool) []string
	pong    string // the answer to an empty JSON object, where that is a ping
}

// Opcodes of RFC 6455.
const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// clientFrame masks with zeros, which changes nothing.
func clientFrame(op byte, payload string) []byte {
	b := []byte{0x80 | op}
	if len(payload) < 126 {
		b = append(b, 0x80|byte(len(payload)))
	} else {
		b = append(b, 0x80|126, byte(len(payload)>>8), byte(len(payload)))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// readFrame returns a frame of a server, valid until the next read.
func readFrame(r *bufio.Reader) (op byte, payload []byte, err error) {
	head, err := r.Peek(2)
	if err != nil {
		return 0, nil, err
	}
	op, size, skip := head[0]&0xf, int(head[1]), 2
	if size >= 126 {
		skip = 4
		if head, err = r.Peek(skip); err != nil {
			return 0, nil, err
		}
		size = int(head[2])<<8 | int(head[3])
	}
	frame, err := r.Peek(skip + size)
	if err != nil {
		return 0, nil, err
	}
	_, err = r.Discard(len(frame))
	return op, frame[skip:], err
}

// open connects a client and opens its session. The reader has what came after it.
func (w wire) open(d net.Dialer, addr string, client int, room bool, r *bufio.Reader) (net.Conn, error) {
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	r.Reset(conn)
	if err := w.session(conn, addr, client, room, r); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open session of client %d: %w", client, err)
	}
	return conn, nil
}

func (w wire) session(conn net.Conn, addr string, client int, room bool, r *bufio.Reader) error {
	head := "GET " + w.path + " HTTP/1.1\r\nHost: " + addr + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	if w.header != nil {
		head += w.header(client)
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return err
	}
	for first := true; ; first = false {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if first && !strings.HasPrefix(line, "HTTP/1.1 101 ") {
			return errors.New("no upgrade: " + strings.TrimSpace(line))
		}
		if line == "\r\n" {
			break
		}
	}
	if w.greeted {
		if err := w.await(conn, r, opText); err != nil {
			return err
		}
	}
	for _, text := range w.hello(client, room) {
		if _, err := conn.Write(clientFrame(opText, text)); err != nil {
			return err
		}
		if err := w.await(conn, r, opText); err != nil {
			return err
		}
	}
	return nil
}

// ping asks for a sign of life and waits for it.
func (w wire) ping(conn net.Conn, r *bufio.Reader) error {
	r.Reset(conn)
	if _, err := conn.Write(clientFrame(opPing, "")); err != nil {
		return err
	}
	return w.await(conn, r, opPong)
}

// await reads up to a frame of a kind and answers pings on the way.
func (w wire) await(conn net.Conn, r *bufio.Reader, want byte) error {
	for {
		op, payload, err := readFrame(r)
		if err != nil {
			return err
		}
		if answered, err := w.answer(conn, op, payload); err != nil || !answered && op == want {
			return err
		}
	}
}

// answer answers a frame that wants a sign of life.
func (w wire) answer(conn net.Conn, op byte, payload []byte) (answered bool, err error) {
	switch {
	case op == opClose:
		return false, fmt.Errorf("closed: %q", payload)
	case op == opPing:
		_, err = conn.Write(clientFrame(opPong, string(payload)))
	case op == opText && w.pong != "" && strings.TrimSpace(string(payload)) == "{}":
		_, err = conn.Write(clientFrame(opText, w.pong))
	default:
		return false, nil
	}
	return true, err
}
