package presence_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"testing/quick"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tracegate/tracegate/core/presence"
)

// random makes sets whose elements often meet: few processes, few stamps.
func random(seed uint64) presence.Set {
	r := rand.New(rand.NewPCG(seed, 1))
	s := presence.Set{}
	for range r.IntN(6) {
		s.Put(fmt.Sprint("node", r.IntN(3)), presence.Element{
			Online: r.IntN(2) == 0, Stamp: presence.Stamp(r.IntN(4)), Life: uint64(r.IntN(2)),
		})
	}
	return s
}

func merged(sets ...presence.Set) presence.Set {
	out := presence.Set{}
	for _, s := range sets {
		out.Merge(s)
	}
	return out
}

func TestMergeLaws(t *testing.T) {
	many := &quick.Config{MaxCount: 2_000}
	for name, law := range map[string]any{
		"commutative": func(x, y uint64) bool {
			a, b := random(x), random(y)
			return maps.Equal(merged(a, b), merged(b, a))
		},
		"associative": func(x, y, z uint64) bool {
			a, b, c := random(x), random(y), random(z)
			return maps.Equal(merged(merged(a, b), c), merged(a, merged(b, c)))
		},
		"idempotent": func(x, y uint64) bool {
			ab := merged(random(x), random(y))
			return maps.Equal(ab, merged(ab, ab)) && maps.Equal(ab, merged(ab, random(y)))
		},
		"what holds never gets older": func(x, y uint64) bool {
			a := random(x)
			m := merged(a, random(y))
			for process, e := range a {
				if m[process].Compare(e) < 0 {
					return false
				}
			}
			return true
		},
	} {
		if err := quick.Check(law, many); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTextKeepsTheOrder(t *testing.T) {
	element := func(stamp, life uint64, online bool) presence.Element {
		return presence.Element{Online: online, Stamp: presence.Stamp(stamp), Life: life}
	}
	after := func(s string) string { return s[len(s)-33:] + s[:len(s)-34] } // stamp|life, then the status
	law := func(s1, l1, s2, l2 uint64, o1, o2 bool, same uint8) bool {
		if same&1 > 0 {
			s2 = s1
		}
		if same&2 > 0 {
			l2 = l1
		}
		a, b := element(s1, l1, o1), element(s2, l2, o2)
		back, err := presence.Parse(a.String())
		x, y := after(a.String()), after(b.String())
		want := 0
		if x < y {
			want = -1
		} else if x > y {
			want = 1
		}
		return err == nil && back == a && a.Compare(b) == want
	}
	if err := quick.Check(law, &quick.Config{MaxCount: 2_000}); err != nil {
		t.Error(err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := presence.Element{Online: true, Stamp: 1, Life: 2}.String()
	for _, s := range []string{
		"", "online", "online|1|2", "here" + good[6:], good + "|", good + "0", good[:len(good)-1] + "g", "online|" + good[8:] + "0",
		"online|000000000000000A|0000000000000002",
	} {
		if e, err := presence.Parse(s); err == nil {
			t.Errorf("%q is %+v", s, e)
		}
	}
}

// replica is a process with a clock of its own that is wrong by skew.
type replica struct {
	name  string
	clock *presence.Clock
	set   presence.Set
}

func newReplica(name string, now *time.Time, skew time.Duration) *replica {
	return &replica{name: name, set: presence.Set{}, clock: presence.NewClock(func() time.Time { return now.Add(skew) })}
}

func (r *replica) say(about string, online bool) {
	r.set.Put(about, presence.Element{Online: online, Stamp: r.clock.Next(), Life: 1})
}

func (r *replica) hear(o *replica) {
	for _, e := range o.set {
		r.clock.Saw(e.Stamp)
	}
	r.set.Merge(o.set)
}

// TestClocksFiveSecondsApart: what is said by who has heard the other holds, whichever
// clock is ahead; and both agree in the end, whatever they said at once.
func TestClocksFiveSecondsApart(t *testing.T) {
	for _, skew := range []time.Duration{5 * time.Second, -5 * time.Second} {
		now := time.UnixMilli(1_800_000_000_000)
		a, b := newReplica("a", &now, 0), newReplica("b", &now, skew)
		a.say("device", true)
		for i := range 100 {
			now = now.Add(time.Millisecond)
			last, other := a, b
			if i%2 == 0 {
				last, other = b, a
			}
			last.hear(other)
			want := i%3 == 0
			last.say("device", want)
			other.hear(last)
			if a.set["device"].Online != want || !maps.Equal(a.set, b.set) {
				t.Fatalf("skew %s, step %d: %v and %v, want online %v", skew, i, a.set, b.set, want)
			}
		}
		a.say("device", true)
		b.say("device", false) // neither has heard the other
		a.hear(b)
		b.hear(a)
		if diff := cmp.Diff(a.set, b.set); diff != "" {
			t.Errorf("skew %s: they do not agree: %s", skew, diff)
		}
	}
}

// TestRandomGossip: replicas with wrong clocks that hear of each other in any order agree
// when all have heard of all.
func TestRandomGossip(t *testing.T) {
	law := func(seed uint64) bool {
		r := rand.New(rand.NewPCG(seed, 2))
		now := time.UnixMilli(1_800_000_000_000)
		var all []*replica
		for i := range 4 {
			all = append(all, newReplica(fmt.Sprint(i), &now, time.Duration(r.IntN(10_000)-5_000)*time.Millisecond))
		}
		for range 60 {
			now = now.Add(time.Duration(r.IntN(50)) * time.Millisecond)
			x, y := all[r.IntN(4)], all[r.IntN(4)]
			if r.IntN(2) == 0 {
				x.say(fmt.Sprint("p", r.IntN(3)), r.IntN(2) == 0)
			} else {
				x.hear(y)
			}
		}
		for range 2 {
			for i := range all {
				all[i].hear(all[(i+1)%4])
				all[(i+2)%4].hear(all[i])
			}
		}
		for _, x := range all {
			for _, y := range all {
				x.hear(y)
			}
		}
		for _, x := range all[1:] {
			if !maps.Equal(x.set, all[0].set) {
				return false
			}
		}
		return true
	}
	if err := quick.Check(law, &quick.Config{MaxCount: 100}); err != nil {
		t.Error(err)
	}
}

func TestClockOnlyGrows(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	c := presence.NewClock(func() time.Time { return now })
	last := c.Next()
	for i := range 200_000 { // more within a millisecond than the count has room for
		if next := c.Next(); next <= last {
			t.Fatalf("%d after %d", next, last)
		} else {
			last = next
		}
		if i == 100_000 {
			now = now.Add(-time.Hour) // set back
		}
	}
	if c.Saw(presence.At(now.Add(365 * 24 * time.Hour))) {
		t.Error("a clock that is wrong by a year is believed")
	}
	if next := c.Next(); next != last+1 {
		t.Errorf("%d after %d", next, last)
	}
}

func TestOnlineNeedsALease(t *testing.T) {
	s := presence.Set{"a": {Online: true, Stamp: 1}, "b": {Online: true, Stamp: 2}, "c": {Stamp: 3}}
	if n := s.Online(func(p string) bool { return p != "a" }); n != 1 {
		t.Errorf("%d", n)
	}
}
