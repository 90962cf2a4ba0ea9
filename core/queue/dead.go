package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tracegate/tracegate/core/chat"
)

// HeaderReplayed names a dead letter: on a record of the topic, the one that it is again;
// on a record of the dead-letter topic, which has no value then, the one that was replayed.
const HeaderReplayed = "tracegate-replayed"

// ErrNoLetter says that there is no dead letter of a name.
var ErrNoLetter = errors.New("no such dead letter")

// Letter is a record that could not be stored.
type Letter struct {
	ID           string      `json:"id"`   // partition and offset, such as "0/12"
	Time         time.Time   `json:"time"` // when it was buried
	Reason       chat.Reason `json:"reason"`
	Detail       string      `json:"detail,omitempty"`
	From         string      `json:"from"` // topic/partition/offset
	Conversation string      `json:"conversation"`
	Record       string      `json:"record"`             // as it was in the log
	Replayed     *time.Time  `json:"replayed,omitempty"` // last

	headers []kgo.RecordHeader // of the record itself
}

// Letters reads the dead-letter topic from its beginning to where it ends now.
func Letters(ctx context.Context, cfg Config) ([]Letter, error) {
	client, err := cfg.connect(kgo.FetchMaxWait(500 * time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	defer client.Close()
	out, err := letters(ctx, client, cfg)
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	return out, nil
}

func letters(ctx context.Context, client *kgo.Client, cfg Config) ([]Letter, error) {
	topic := cfg.DeadTopic
	left, err := unread(ctx, kadm.NewClient(client), topic)
	for giveUp := time.Now().Add(cfg.Timeout); kerr.IsRetriable(err) && time.Now().Before(giveUp); { // as of a topic that has just been made
		if err := sleep(ctx, cfg.Backoff); err != nil {
			return nil, err
		}
		left, err = unread(ctx, kadm.NewClient(client), topic)
	}
	if err != nil {
		return nil, err
	}
	from := map[int32]kgo.Offset{}
	for p := range left {
		from[p] = kgo.NewOffset().AtStart()
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: from})
	var out []Letter
	replayed := map[string]time.Time{}
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, ok := left[r.Partition]; ok && r.Offset >= end-1 {
				delete(left, r.Partition)
			}
			if id := headerValue(r.Headers, HeaderReplayed); id != nil && r.Value == nil {
				replayed[string(id)] = r.Timestamp
				return
			}
			out = append(out, readLetter(r))
		})
	}
	for i := range out {
		if at, ok := replayed[out[i].ID]; ok {
			out[i].Replayed = &at
		}
	}
	return out, nil
}

// unread are the ends of partitions that have something.
func unread(ctx context.Context, admin *kadm.Client, topic string) (map[int32]int64, error) {
	starts, ends, err := extent(ctx, admin, topic)
	if err != nil {
		return nil, err
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if start, ok := starts.Lookup(topic, o.Partition); ok && start.Offset < o.Offset {
			left[o.Partition] = o.Offset
		}
	})
	return left, nil
}

// extent is where the partitions of a topic start and end.
func extent(ctx context.Context, admin *kadm.Client, topic string) (starts, ends kadm.ListedOffsets, err error) {
	if starts, err = admin.ListStartOffsets(ctx, topic); err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, nil, err
	}
	if ends, err = admin.ListEndOffsets(ctx, topic); err == nil {
		err = ends.Error()
	}
	return starts, ends, err
}

func readLetter(r *kgo.Record) Letter {
	l := Letter{
		ID: strconv.Itoa(int(r.Partition)) + "/" + strconv.FormatInt(r.Offset, 10), Time: r.Timestamp,
		Reason: chat.Reason(headerValue(r.Headers, HeaderReason)), Detail: string(headerValue(r.Headers, HeaderDetail)),
		From: string(headerValue(r.Headers, HeaderFrom)), Conversation: string(r.Key), Record: string(r.Value),
	}
	for _, h := range r.Headers {
		if !strings.HasPrefix(h.Key, "tracegate-") {
			l.headers = append(l.headers, h)
		}
	}
	return l
}

// Replay puts letters into the log again, at its end, as durably as they were accepted the
// first time, and notes that it has. They are judged anew: one that still cannot be stored
// becomes another letter. A letter that was stored meanwhile, or is replayed twice, is
// recognised by its client id and stored once.
func Replay(ctx context.Context, cfg Config, ids ...string) error {
	client, err := cfg.connect(kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordDeliveryTimeout(cfg.Timeout), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return fmt.Errorf("replay dead letters: %w", err)
	}
	defer client.Close()
	all, err := letters(ctx, client, cfg)
	if err != nil {
		return fmt.Errorf("replay dead letters: %w", err)
	}
	for _, id := range ids { // all are there, or none is replayed
		if !slices.ContainsFunc(all, func(l Letter) bool { return l.ID == id }) {
			return fmt.Errorf("replay dead letter %q: %w", id, ErrNoLetter)
		}
	}
	for _, l := range all { // in the order in which they were buried
		if !slices.Contains(ids, l.ID) {
			continue
		}
		note := kgo.RecordHeader{Key: HeaderReplayed, Value: []byte(l.ID)}
		again := &kgo.Record{Topic: cfg.Topic, Key: []byte(l.Conversation), Value: []byte(l.Record), Headers: append(slices.Clone(l.headers), note)}
		if err := client.ProduceSync(ctx, again).FirstErr(); err != nil {
			return fmt.Errorf("replay dead letter %q: %w", l.ID, err)
		}
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: cfg.DeadTopic, Headers: []kgo.RecordHeader{note}}).FirstErr(); err != nil {
			return fmt.Errorf("note that dead letter %q was replayed: %w", l.ID, err)
		}
	}
	return nil
}
