//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core/protocol"
)

// listenForMessages takes messages for the room over a connection of its own, one a
// line: its number and the time it was sent.
func listenForMessages(show publish) (addr string, err error) {
	if show == nil {
		return "", errors.New("this server has no rooms")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { // ends with the process
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			takeMessages(conn, show)
		}
	}()
	return l.Addr().String(), nil
}

func takeMessages(conn net.Conn, show publish) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		number, _, _ := strings.Cut(lines.Text(), ":")
		seq, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return
		}
		if show(protocol.Message{
			Conversation: roomName, Seq: seq, ClientID: "client-id-of-a-usual-length", Sender: "somebody", SentAt: time.Now().UTC(), TraceID: strings.Repeat("a", 32),
			Text: mark + lines.Text() + ";a message of a usual length, as people write them to each other",
		}) != nil {
			return
		}
	}
}

// mark is where number and time begin in a text.
const mark = "sent:"

type converseArgs struct {
	Publisher string
	First     int64 // number of the first message
	For       time.Duration
	Window    int     // messages under way
	PerSecond float64 // messages a second; 0: as many as go
}

// heard is what came of it.
type heard struct {
	Messages, Deliveries int64
	Took                 time.Duration
	P50, P99             time.Duration
}

// converse publishes for a time, waits until all members have all messages, and fails if
// one of them misses a message or gets it out of order.
func (l *load) converse(a converseArgs) (h heard, err error) {
	pub, err := net.Dial("tcp", a.Publisher)
	if err != nil {
		return h, err
	}
	defer pub.Close()
	room := &room{wire: l.wire, members: int64(len(l.conns)), free: make(chan struct{}, a.Window)}
	for range a.Window {
		room.free <- struct{}{}
	}
	begin := time.Now()
	g, ctx := errgroup.WithContext(context.Background())
	for _, conn := range l.conns {
		g.Go(func() error { return room.listen(conn, a.First) })
	}
	sent := int64(0)
	g.Go(func() (err error) {
		sent, err = room.speak(ctx, pub, a, begin)
		return err
	})
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), context.Canceled) {
			return // all have ended well
		}
		for _, conn := range l.conns {
			_ = conn.SetReadDeadline(time.Now())
		}
	})
	defer stop()
	if err := g.Wait(); err != nil {
		return h, err
	}
	took := time.Since(begin)
	return heard{
		Messages: sent + 1, Deliveries: room.delivered.Load(), Took: took,
		P50: room.latencies.quantile(0.5), P99: room.latencies.quantile(0.99),
	}, nil
}

// room is one measurement.
type room struct {
	wire      wire
	members   int64
	free      chan struct{} // a token for each message that may be sent
	last      atomic.Int64
	have      [4096]atomic.Int64 // members that have a message; fewer messages are under way at a time
	delivered atomic.Int64
	latencies histogram
}

// speak sends messages for a time, and then the last one.
func (r *room) speak(ctx context.Context, pub net.Conn, a converseArgs, begin time.Time) (sent int64, err error) {
	for time.Since(begin) < a.For {
		at := time.Now()
		if a.PerSecond > 0 {
			at = begin.Add(time.Duration(float64(sent) / a.PerSecond * float64(time.Second)))
			if wait := time.Until(at); wait > 0 {
				<-time.After(wait)
			}
		}
		select {
		case <-r.free:
		case <-ctx.Done():
			return sent, nil
		}
		if a.PerSecond == 0 {
			at = time.Now() // with a rate, what waits is late
		}
		if _, err := fmt.Fprintf(pub, "%d:%d\n", a.First+sent, at.UnixNano()); err != nil {
			return sent, err
		}
		sent++
	}
	r.last.Store(a.First + sent) // listeners stop at it
	_, err = fmt.Fprintf(pub, "%d:%d\n", a.First+sent, time.Now().UnixNano())
	return sent, err
}

// listen reads messages of one member up to the last.
func (r *room) listen(conn net.Conn, next int64) error {
	in := bufio.NewReaderSize(conn, 32<<10)
	for {
		op, payload, err := readFrame(in)
		if err != nil {
			return err
		}
		if answered, err := r.wire.answer(conn, op, payload); err != nil {
			return err
		} else if answered {
			continue
		}
		now := time.Now().UnixNano()
		for bytes.Contains(payload, []byte(mark)) { // a frame may have more than one
			seq, sent, rest, err := marked(payload)
			if err != nil {
				return err
			}
			payload = rest
			if seq != next {
				return fmt.Errorf("message %d came, %d was due", seq, next)
			}
			next++
			r.latencies.add(time.Duration(now - sent))
			r.delivered.Add(1)
			if have := &r.have[seq%int64(len(r.have))]; have.Add(1) == r.members {
				have.Store(0)
				select { // all members have it
				case r.free <- struct{}{}:
				default:
				}
			}
			if seq == r.last.Load() {
				return nil
			}
		}
	}
}

// marked is the number and the time of the first message in a payload, and the rest of it.
func marked(payload []byte) (seq, sent int64, rest []byte, err error) {
	_, after, _ := bytes.Cut(payload, []byte(mark))
	head, rest, _ := bytes.Cut(after, []byte(";"))
	number, at, _ := strings.Cut(string(head), ":")
	seq, err1 := strconv.ParseInt(number, 10, 64)
	sent, err2 := strconv.ParseInt(at, 10, 64)
	return seq, sent, rest, errors.Join(err1, err2)
}

// histogram counts durations in buckets of 3%.
type histogram struct{ counts [1024]atomic.Int64 }

const bucketGrowth = 1.03

func (h *histogram) add(d time.Duration) {
	h.counts[min(max(int(math.Log(float64(max(d, 1)))/math.Log(bucketGrowth)), 0), len(h.counts)-1)].Add(1)
}

// quantile is the upper end of the bucket in which it lies.
func (h *histogram) quantile(q float64) time.Duration {
	total := int64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	seen := int64(0)
	for i := range h.counts {
		if seen += h.counts[i].Load(); seen > 0 && float64(seen) >= q*float64(total) {
			return time.Duration(math.Pow(bucketGrowth, float64(i+1)))
		}
	}
	return 0
}
