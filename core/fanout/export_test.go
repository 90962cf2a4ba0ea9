package fanout

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/presence"
)

// Skew makes the clock that presence is said by wrong, as that of another machine.
func (f *Fanout) Skew(by time.Duration) {
	f.clock = presence.NewClock(func() time.Time { return time.Now().Add(by) })
	f.life = uint64(f.clock.Next())
}

// Merge has the server take one element in, and returns the one that holds.
func (f *Fanout) Merge(ctx context.Context, user, node string, e presence.Element) (presence.Element, error) {
	keys := []string{f.key(user, "state"), f.key(user, "sockets"), f.lease(user, node)}
	text, err := sayScript.Run(ctx, f.client, keys, node, e.String(), e.Life, 1, f.cfg.PresenceTTL.Milliseconds(), "", "", "").Text()
	if err != nil {
		return presence.Element{}, err
	}
	return presence.Parse(text)
}

// State is what the server has of a user.
func (f *Fanout) State(ctx context.Context, user string) (presence.Set, error) {
	return f.state(ctx, user)
}

// Reaches is how many processes are subscribed to a user's channel. They get garbage.
func (f *Fanout) Reaches(ctx context.Context, user string) int64 {
	if f.sharded.Load() {
		return f.client.SPublish(ctx, f.channel(user, true), "").Val()
	}
	return f.client.Publish(ctx, f.channel(user, false), "").Val()
}

// CheckCodec decodes what may be a push, and encodes and decodes it again.
func CheckCodec(t *testing.T, user string, b []byte) {
	t.Helper()
	node, p, ok := decode(user, b)
	if !ok {
		return
	}
	if p.Seq < 0 || user == "" && (p.Seq < 1 || p.Version < 1 && len(p.Users) == 0) {
		t.Errorf("%q: %+v", b, p)
	}
	again, q, ok := decode(user, encode(node, p))
	if !ok || again != node || !reflect.DeepEqual(p, q) {
		t.Errorf("%q: %+v, then %+v", b, p, q)
	}
}
