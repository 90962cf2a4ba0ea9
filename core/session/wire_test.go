package session_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/core/protocol/wire"
	"github.com/tracegate/tracegate/core/session"
)

// send is a command whose text is text; the rig's sender accepts anything.
func send(text string) string {
	return `{"id":7,"send":{"conversation":"a","client_id":"1","text":"` + text + `"}}`
}

// TestWireRules are the rules that the Autobahn test suite's cases 1 to 7 check, on our
// own protocol: each case is what a client writes, all at once and then octet by octet,
// and all that it is told until the connection ends. A case that does not end the
// connection itself says goodbye with 1000.
func TestWireRules(t *testing.T) {
	const (
		ping  = `{"id":1,"ping":{}}`
		limit = 32 << 10 // of a message after the first
		wrong = "close:1002"
		utf8  = "error close:1007"
		bye   = "close:1000"
	)
	goodbye := closeFrame(1000, "")
	text := func(s string) []byte { return frame(fin|opText, s) }
	fill := func(n int) string { return ping + strings.Repeat(" ", n-len(ping)) }
	long := func(length uint64) []byte { // a head that announces a length
		return append(binary.BigEndian.AppendUint64([]byte{fin | opText, 0x80 | 127}, length), 0, 0, 0, 0)
	}
	for _, c := range []struct {
		name  string
		bytes []byte
		want  string
	}{
		// 1: framing
		{"1 text of 125 bytes, a length in one byte", join(text(fill(125)), goodbye), "answer " + bye},
		{"1 text of 126 bytes, a length in two", join(text(fill(126)), goodbye), "answer " + bye},
		{"1 text of 127 bytes", join(text(fill(127)), goodbye), "answer " + bye},
		{"1 text of 128 bytes", join(text(fill(128)), goodbye), "answer " + bye},
		{"1 text of 64 KB, a length in eight bytes", join(text(fill(1<<16)), goodbye), "answer " + bye},
		{"1 first text of the largest size", join(text(fill(session.MaxResume)), goodbye), "answer " + bye},
		{"1 first text of one byte more", long(session.MaxResume + 1), "close:1009"},
		{"1 later text of the largest size", join(text(ping), text(fill(limit)), goodbye), "answer answer " + bye},
		{"1 later text of one byte more", join(text(ping), text(fill(limit+1)), goodbye), "answer close:1009"},
		{"1 text that announces 2^62 bytes", long(1 << 62), "close:1009"},
		{"1 text that announces 2^63 bytes", long(1 << 63), "close:1009"},
		{"1 empty text is no command", join(text(""), goodbye), "error close:3502"},
		{"1 binary is not spoken here", join(frame(fin|opBinary, ping), goodbye), "error close:3502"},
		{"1 a client must mask", join([]byte{fin | opText, byte(len(ping))}, []byte(ping)), wrong},
		{"1 nor may a ping be unmasked", []byte{fin | opPing, 0}, wrong},

		// 2: pings and pongs
		{"2 ping without payload", join(frame(fin|opPing, ""), goodbye), "pong: " + bye},
		{"2 ping with text", join(frame(fin|opPing, "Hello, world!"), goodbye), "pong:Hello, world! " + bye},
		{"2 ping with bytes that are no UTF-8", join(frame(fin|opPing, "\x00\xff\xfe\xfd"), goodbye), "pong:\x00\xff\xfe\xfd " + bye},
		{"2 ping of 125 bytes", join(frame(fin|opPing, strings.Repeat("x", 125)), goodbye), "pong:" + strings.Repeat("x", 125) + " " + bye},
		{"2 ping of 126 bytes", frame(fin|opPing, strings.Repeat("x", 126)), wrong},
		{"2 pong that nobody asked for", join(frame(fin|opPong, ""), frame(fin|opPong, "x"), text(ping), goodbye), "answer " + bye},
		{"2 pong and then ping", join(frame(fin|opPong, "x"), frame(fin|opPing, "y"), goodbye), "pong:y " + bye},
		{"2 ten pings are answered in order", join(frame(fin|opPing, "0"), frame(fin|opPing, "1"), frame(fin|opPing, "2"), frame(fin|opPing, "3"), frame(fin|opPing, "4"),
			frame(fin|opPing, "5"), frame(fin|opPing, "6"), frame(fin|opPing, "7"), frame(fin|opPing, "8"), frame(fin|opPing, "9"), goodbye),
			"pong:0 pong:1 pong:2 pong:3 pong:4 pong:5 pong:6 pong:7 pong:8 pong:9 " + bye},

		// 3: reserved bits
		{"3 RSV1 without an extension", frame(fin|rsv1|opText, ping), wrong},
		{"3 RSV2", frame(fin|rsv2|opText, ping), wrong},
		{"3 RSV3", frame(fin|rsv3|opText, ping), wrong},
		{"3 all of them", frame(fin|rsv1|rsv2|rsv3|opText, ping), wrong},
		{"3 in a ping", frame(fin|rsv3|opPing, ""), wrong},
		{"3 in a close", frame(fin|rsv2|opClose, ""), wrong},
		{"3 what came before is answered", join(text(ping), frame(fin|rsv1|opText, ping)), "answer " + wrong},

		// 4: reserved opcodes
		{"4 opcode 3", frame(fin|3, ""), wrong},
		{"4 opcode 4 with payload", frame(fin|4, "x"), wrong},
		{"4 opcode 5 with payload", frame(fin|5, "x"), wrong},
		{"4 opcode 6 in a part", frame(6, "x"), wrong},
		{"4 opcode 7", frame(fin|7, ""), wrong},
		{"4 opcode 11", frame(fin|11, ""), wrong},
		{"4 opcode 13 with payload", frame(fin|13, "x"), wrong},
		{"4 opcode 14 within a text", join(frame(opText, ping[:5]), frame(fin|14, "")), wrong},
		{"4 opcode 15 with payload", frame(fin|15, "x"), wrong},
		{"4 opcode 12 after a command", join(text(ping), frame(fin|12, "")), "answer " + wrong},

		// 5: parts
		{"5 ping in parts", join(frame(opPing, "a"), frame(fin|opContinuation, "b")), wrong},
		{"5 pong in parts", join(frame(opPong, "a"), frame(fin|opContinuation, "b")), wrong},
		{"5 close in parts", join(frame(opClose, "\x03"), frame(fin|opContinuation, "\xe8")), wrong},
		{"5 text in two parts", join(frame(opText, ping[:5]), frame(fin|opContinuation, ping[5:]), goodbye), "answer " + bye},
		{"5 text in parts with nothing in some", join(frame(opText, ""), frame(opContinuation, ping), frame(opContinuation, ""), frame(fin|opContinuation, ""), goodbye), "answer " + bye},
		{"5 a ping between the parts", join(frame(opText, ping[:5]), frame(fin|opPing, "p"), frame(fin|opContinuation, ping[5:]), goodbye), "pong:p answer " + bye},
		{"5 pings between many parts", join(frame(opText, ping[:3]), frame(fin|opPing, "1"), frame(opContinuation, ping[3:9]), frame(fin|opPing, "2"), frame(fin|opContinuation, ping[9:]), goodbye),
			"pong:1 pong:2 answer " + bye},
		{"5 a continuation of nothing", frame(fin|opContinuation, ping), wrong},
		{"5 a continuation of nothing that goes on", join(frame(opContinuation, ping), frame(fin|opContinuation, "")), wrong},
		{"5 a continuation after a whole text", join(text(ping), frame(fin|opContinuation, "")), "answer " + wrong},
		{"5 a continuation of nothing, with its rest and a text in parts", join(frame(opContinuation, "x"), frame(opText, ping[:5]), frame(fin|opContinuation, ping[5:])), wrong},
		{"5 a continuation after a text in parts", join(frame(opText, ping[:5]), frame(fin|opContinuation, ping[5:]), frame(opContinuation, "x"), frame(fin|opText, ping)), "answer " + wrong},
		{"5 two texts in parts", join(frame(opText, ping[:5]), frame(fin|opContinuation, ping[5:]), frame(opText, ping[:7]), frame(fin|opContinuation, ping[7:]), goodbye), "answer answer " + bye},
		{"5 a text within a text", join(frame(opText, ping[:5]), frame(fin|opText, ping)), wrong},
		{"5 a binary within a text", join(frame(opText, ping[:5]), frame(fin|opBinary, "x")), wrong},
		{"5 parts that are too large together", join(text(ping), frame(opText, fill(limit)), frame(opContinuation, " "), frame(fin|opContinuation, "")), "answer close:1009"},
		{"5 a close within a text ends it", join(frame(opText, ping[:5]), goodbye), bye},

		// 6: UTF-8; all sequences are TestUTF8Sequences
		{"6 no text at all, in parts", join(frame(opText, ""), frame(opContinuation, ""), frame(fin|opContinuation, ""), goodbye), "error close:3502"},
		{"6 nothing, text, nothing", join(frame(opText, ""), frame(opContinuation, ping), frame(fin|opContinuation, ""), goodbye), "answer " + bye},
		{"6 Greek, Chinese and beyond the plane", join(text(send("κόσμε 世界 𝄞")), goodbye), "accepted " + bye},
		{"6 the last code points", join(text(send("\u07ff\uffff\U0010ffff")), goodbye), "accepted " + bye},
		{"6 a non-character is a code point", join(text(send("\ufffe\U0001fffe")), goodbye), "accepted " + bye},
		{"6 parts that end within a code point", join(frame(opText, send("κ")[:len(send(""))-3]), frame(opContinuation, "\xce"), frame(fin|opContinuation, "\xba\"}}"), goodbye), "accepted " + bye},
		{"6 an octet that is never UTF-8", join(text(send("\xff")), goodbye), utf8},
		{"6 a lonely continuation", join(text(send("\x80")), goodbye), utf8},
		{"6 a sequence without its end", join(text(send("\xce")), goodbye), utf8},
		{"6 a sequence without its end in the last part", join(frame(opText, send("")), frame(fin|opContinuation, "\xce"), goodbye), utf8},
		{"6 an overlong slash", join(text(send("\xc0\xaf")), goodbye), utf8},
		{"6 an overlong NUL in four", join(text(send("\xf0\x80\x80\x80")), goodbye), utf8},
		{"6 a surrogate", join(text(send("\xed\xa0\x80")), goodbye), utf8},
		{"6 a pair of surrogates", join(text(send("\xed\xa0\x80\xed\xb0\x80")), goodbye), utf8},
		{"6 beyond U+10FFFF", join(text(send("\xf4\x90\x80\x80")), goodbye), utf8},
		{"6 five octets", join(text(send("\xf8\x88\x80\x80\x80")), goodbye), utf8},
		{"6 wrong in the first of two parts", join(frame(opText, send("\xff")), frame(fin|opContinuation, ""), goodbye), utf8},

		// 7: closing
		{"7 close after a command", join(text(ping), goodbye), "answer " + bye},
		{"7 twice", join(goodbye, goodbye), bye},
		{"7 a ping after it is not answered", join(goodbye, frame(fin|opPing, "")), bye},
		{"7 the rest of a text after it is not read", join(frame(opText, ping[:5]), goodbye, frame(fin|opContinuation, ping[5:])), bye},
		{"7 after the largest text, and a ping", join(text(fill(limit)), goodbye, frame(fin|opPing, "")), "answer " + bye},
		{"7 a command after it is not answered", join(goodbye, text(ping)), bye},
		{"7 without a code", frame(fin|opClose, ""), "close:none"},
		{"7 with half a code, which gorilla takes for none", frame(fin|opClose, "\x03"), "close:none"},
		{"7 with a reason", closeFrame(1000, "enough"), bye},
		{"7 with the longest reason", closeFrame(1000, strings.Repeat("x", 123)), bye},
		{"7 with a longer one", frame(fin|opClose, "\x03\xe8"+strings.Repeat("x", 124)), wrong},
		{"7 with a reason that is no UTF-8", frame(fin|opClose, "\x03\xe8\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"), wrong},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, chop := range map[string]bool{"at once": false, "octet by octet": true} {
				if chop && len(c.bytes) > 1000 {
					continue
				}
				client := dialRaw(t, newRig(t, nil), "")
				client.write(c.bytes, chop)
				if got := client.told(); got != c.want {
					t.Errorf("%s: told %q, want %q", name, got, c.want)
				}
			}
		})
	}
	for code, valid := range map[int]bool{
		0: false, 999: false, 1000: true, 1001: true, 1002: true, 1003: true, 1004: false, 1005: false, 1006: false, 1007: true, 1008: true, 1009: true,
		1010: true, 1011: true, 1012: true, 1013: true, 1014: false, 1015: false, 1016: false, 1100: false, 2000: false, 2999: false,
		3000: true, 3999: true, 4000: true, 4999: true, 5000: false, 65535: false,
	} {
		t.Run(fmt.Sprintf("7 code %d", code), func(t *testing.T) {
			client := dialRaw(t, newRig(t, nil), "")
			client.write(frame(fin|opClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))), false)
			want := wrong
			if valid {
				want = fmt.Sprintf("close:%d", code)
			}
			if got := client.told(); got != want {
				t.Errorf("told %q, want %q", got, want)
			}
		})
	}
}

// TestUTF8Sequences are the octets that the Autobahn cases 6.5 to 6.23 send, whole and with
// a part for each octet: each is a text, or ends the connection with 1007.
func TestUTF8Sequences(t *testing.T) {
	valid := []string{
		"\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xec\x80\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbd", "\xef\xbf\xbe", "\xef\xbf\xbf",
		"\xf0\x90\x80\x80", "\xf0\x9f\xbf\xbe", "\xf0\x9f\xbf\xbf", "\xf3\xbf\xbf\xbe", "\xf4\x8f\xbf\xbe", "\xf4\x8f\xbf\xbf",
		"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5",
	}
	invalid := []string{
		"\xf4\x90\x80\x80", "\xf7\xbf\xbf\xbf", "\xf8\x88\x80\x80\x80", "\xfb\xbf\xbf\xbf\xbf", "\xfc\x84\x80\x80\x80\x80", "\xfd\xbf\xbf\xbf\xbf\xbf", // too large
		"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80\xbf\x80", // continuations of nothing
		"\xc0 ", "\xdf ", "\xe0 ", "\xef ", "\xf0 ", "\xf7 ", "\xf8 ", "\xfb ", "\xfc ", "\xfd ", // without continuation
		"\xc2", "\xe0\xa0", "\xf0\x90\x80", "\xdf", "\xef\xbf", "\xf4\x8f\xbf", "\xe0\xa0\xe0\xa0", "\xf0\x90\x80\xdf", // without their end
		"\xfe", "\xff", "\xfe\xfe\xff\xff", // never
		"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf", // longer than need be
		"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80",
		"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf", // surrogates
		"\xed\xa0\x80\xed\xb0\x80", "\xed\xad\xbf\xed\xbf\xbf", "\xed\xaf\xbf\xed\xbf\xbf",
		"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
	}
	r := newRig(t, func(c *session.Config) { c.MaxPerUser, c.MaxPerUserAll = 1000, 1000 })
	check := func(sequence, want string) {
		text := send(sequence)
		parts := [][]byte{frame(opText, "")}
		for i := range len(text) {
			parts = append(parts, frame(opContinuation, text[i:i+1]))
		}
		for name, octets := range map[string][]byte{"whole": frame(fin|opText, text), "in parts": join(append(parts, frame(fin|opContinuation, ""))...)} {
			client := dialRaw(t, r, "")
			client.write(join(octets, closeFrame(1000, "")), false)
			if got := client.told(); got != want {
				t.Errorf("%x %s: told %q, want %q", sequence, name, got, want)
			}
		}
	}
	for _, s := range valid {
		check(s, "accepted close:1000")
	}
	for _, s := range invalid {
		check(s, "error close:1007")
	}
}

// TestBinaryFrames are cases 1 and 5 on a connection that speaks protobuf: sizes at which
// the form of the length changes, in parts too (TestBadProtobufClosesOneConnectionOnly has what it does not speak).
func TestBinaryFrames(t *testing.T) {
	r := newRig(t, nil)
	for _, size := range []int{60, 125, 126, 127, 128, 4000} {
		pad := size - len(wire.AppendCommand(nil, protocol.Command{ID: 7, Typing: &protocol.Typing{Conversation: "a"}}))
		command := string(wire.AppendCommand(nil, protocol.Command{ID: 7, Typing: &protocol.Typing{Conversation: strings.Repeat("a", 1+pad)}}))
		for name, octets := range map[string][]byte{
			"whole":    frame(fin|opBinary, command),
			"in parts": join(frame(opBinary, command[:5]), frame(fin|opPing, ""), frame(fin|opContinuation, command[5:])),
		} {
			ws := r.binary("")
			if _, err := nextBinary(ws); err != nil { // the hello
				t.Fatal(err)
			}
			if _, err := ws.NetConn().Write(octets); err != nil {
				t.Fatal(err)
			}
			if f, err := nextBinary(ws); err != nil || f.ID != 7 {
				t.Errorf("%d bytes %s: %+v %v", len(command), name, f, err)
			}
		}
	}
}

// TestCompressionIsNotAgreedOn: a server that agreed would keep a window of 32 KB.
func TestCompressionIsNotAgreedOn(t *testing.T) {
	c := dialRaw(t, newRig(t, nil), "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n")
	c.write(closeFrame(1000, ""), false)
	if got := c.told(); got != "close:1000" {
		t.Errorf("told %q", got)
	}
}

// TestPingsThatNobodyReads: a client that pings and does not read has only the newest
// pings answered, and costs the server a bounded queue.
func TestPingsThatNobodyReads(t *testing.T) {
	r := newRig(t, func(c *session.Config) { c.WriteTimeout = time.Minute })
	c := dialRaw(t, r, "")
	ping := frame(fin|opPing, strings.Repeat("x", 125))
	const pings = 100_000 // 13 MB, more than the buffers of the sockets hold
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range pings {
			if _, err := c.conn.Write(ping); err != nil {
				return
			}
		}
		_, _ = c.conn.Write(join(frame(fin|opPing, "last"), frame(fin|opText, `{"id":1,"ping":{}}`)))
	}()
	<-done
	last, pongs := "", 0
	for {
		op, payload, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		if op == opText {
			break
		}
		last = payload
		pongs++
	}
	if last != "last" || pongs > pings {
		t.Errorf("%d pongs, the last one %q", pongs, last)
	}
}
