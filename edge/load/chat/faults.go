package chat

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tracegate/tracegate/core/protocol"
)

// Fault is trouble that can be made again and again.
type Fault struct {
	// Name is such as "kill kafka". Faults of one Target are never made at the same time.
	Name, Target string
	// Strike makes the trouble. What it returns ends it, and waits until that has healed.
	Strike func(ctx context.Context) (heal func(context.Context) error, err error)
}

// Config is how hard to press.
type Config struct {
	Seed     uint64
	Duration time.Duration // of chatting
	Pairs    int           // of users
	Devices  int           // of each user
	Rate     float64       // what all users ask for, a second
	Hall     int           // silent members of a large group; 0: there is none
	Calm     time.Duration // at most, between two faults
	Hold     time.Duration // at most, for which a fault lasts
	Hop      time.Duration // at most, for which a device stays at one door
	Settle   time.Duration // at most, until all is quiet when the trouble is over
}

// DefaultConfig fits one machine.
func DefaultConfig() Config {
	return Config{
		Duration: time.Minute, Pairs: 4, Devices: 2, Rate: 60, Hall: 95,
		Calm: 4 * time.Second, Hold: 8 * time.Second, Hop: 15 * time.Second, Settle: 4 * time.Minute,
	}
}

// Validate names the key that is wrong.
func (c Config) Validate() error {
	for _, k := range []struct {
		key string
		ok  bool
	}{
		{"duration: must be 1s to 24h", c.Duration >= time.Second && c.Duration <= 24*time.Hour},
		{"users: must be 2 to 200", c.Pairs >= 1 && c.Pairs <= 100},
		{"devices: must be 1 to 8", c.Devices >= 1 && c.Devices <= 8},
		{"rate: must be above 0 and at most 2000", c.Rate > 0 && c.Rate <= 2000},
		{"hall: must be 0 to 5000", c.Hall >= 0 && c.Hall <= 5000},
		{"calm: must be positive", c.Calm > 0},
		{"hold: must be positive", c.Hold > 0},
		{"hop: must not be negative", c.Hop >= 0},
		{"settle: must be positive", c.Settle > 0},
	} {
		if !k.ok {
			return fmt.Errorf("%s", k.key)
		}
	}
	return nil
}

// Struck is a fault as it was made.
type Struck struct {
	Name   string  `json:"name"`
	AtMS   float64 `json:"at_ms"`   // since the start
	HeldMS float64 `json:"held_ms"` // until it was ended
	// HealedMS is how long it took after that until what was broken was there again.
	HealedMS float64 `json:"healed_ms"`
}

// crowd is a run of Faults.
type crowd struct {
	*room
	cfg     Config
	chatty  []*person
	visitor *person
	hall    []*person // silent members of the large group
	// listeners are those of them who are connected.
	listeners []*person
	marks     marks
	// decks are faults that are still to be made before those of a target are dealt anew;
	// turns is how often a target was chosen.
	decks map[string][]Fault
	turns map[string]int
}

// Faults has users chat while faults are made, waits until all is quiet, and judges.
func Faults(ctx context.Context, cfg Config, w World, log *slog.Logger) (Report, error) {
	rep := Report{Schema: Schema, Started: time.Now(), Seed: cfg.Seed}
	if err := cfg.Validate(); err != nil {
		return rep, err
	}
	r, err := newRoom(w, log)
	if err != nil {
		return rep, err
	}
	defer r.close()
	c := &crowd{room: r, cfg: cfg, marks: marks{read: map[string]int64{}}}
	if err := c.gather(ctx); err != nil {
		return rep, fmt.Errorf("gather users: %w", err)
	}
	log.Info("users are connected", "users", len(c.people), "devices", len(c.chatty)*cfg.Devices+1, "faults", len(w.Faults), "seed", cfg.Seed)
	if rep.Faults, err = c.press(ctx); err != nil {
		return rep, err
	}
	err = c.judge(ctx, &rep)
	rep.Ended = time.Now()
	rep.finish()
	return rep, err
}

// gather makes users, conversations and devices.
func (c *crowd) gather(ctx context.Context) error {
	ctxAll := ctx
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute+time.Duration(c.cfg.Hall)*5*time.Second)
	defer cancel()
	var names []string
	for i := range 2 * c.cfg.Pairs {
		names = append(names, fmt.Sprintf("u%d", i))
	}
	people, err := c.enroll(ctx, append(names, "visitor")...)
	if err != nil {
		return err
	}
	c.chatty, c.visitor = people[:len(names)], people[len(names)]
	if c.listeners, err = c.enroll(ctx, []string{"listener0", "listener1"}[:min(2, c.cfg.Hall)]...); err != nil {
		return err
	}
	c.hall = slices.Clone(c.listeners)
	for i := range c.cfg.Hall - len(c.listeners) {
		p, err := c.register(ctx, fmt.Sprintf("%s-silent%d", c.prefix, i))
		if err != nil {
			return err
		}
		c.hall = append(c.hall, p)
	}
	add := func(id string, err error, members ...*person) error {
		t := Talk{ID: id}
		for _, p := range members {
			t.Always = append(t.Always, p.name)
		}
		c.talks = append(c.talks, t)
		return err
	}
	for i := 0; i < len(c.chatty); i += 2 {
		id, err := c.direct(ctx, c.chatty[i], c.chatty[i+1])
		if err := add(id, err, c.chatty[i], c.chatty[i+1]); err != nil {
			return err
		}
	}
	id, err := c.group(ctx, "room", c.chatty[0], c.chatty[1:]...)
	if err := add(id, err, c.chatty...); err != nil {
		return err
	}
	if c.cfg.Hall > 0 {
		everyone := append(slices.Clone(c.chatty), c.hall...)
		id, err := c.group(ctx, "hall", c.chatty[0], everyone[1:]...)
		if err := add(id, err, everyone...); err != nil {
			return err
		}
	}
	for _, p := range c.chatty {
		c.connect(ctxAll, p, c.cfg.Devices, c.starts(p), c.cfg.Hop, c.cfg.Seed+1)
	}
	c.connect(ctxAll, c.visitor, 1, nil, c.cfg.Hop, c.cfg.Seed+2)
	for _, p := range c.listeners {
		c.connect(ctxAll, p, 1, c.starts(p), c.cfg.Hop, c.cfg.Seed+3)
	}
	return c.live(ctx, c.chatty...)
}

// starts are the positions before the first entry of a user's conversations.
func (c *crowd) starts(p *person) map[string]int64 {
	out := map[string]int64{}
	for _, t := range c.talks {
		if slices.Contains(t.Always, p.name) {
			out[t.ID] = 0
		}
	}
	return out
}

// press has everybody chat while faults are made one after the other, and returns when
// the last has healed and everybody has got an answer to the last request.
func (c *crowd) press(ctx context.Context) ([]Struck, error) {
	chat, stop := context.WithTimeout(ctx, c.cfg.Duration)
	defer stop()
	var wg sync.WaitGroup
	// Who still waits for an answer when the time is over may wait until all has healed.
	answers, done := context.WithCancel(ctx)
	defer done()
	for i, p := range c.chatty {
		rnd := rand.New(rand.NewPCG(c.cfg.Seed, uint64(i)))
		wg.Go(func() { c.chat(chat, answers, p, rnd) })
	}
	wg.Go(func() { c.doorkeeper(chat, answers, rand.New(rand.NewPCG(c.cfg.Seed, 1<<32))) })
	struck, err := c.strike(chat, ctx, rand.New(rand.NewPCG(c.cfg.Seed, 1<<33)))
	stop()
	t := time.AfterFunc(c.cfg.Settle, done)
	defer t.Stop()
	wg.Wait()
	return struck, err
}

// strike makes faults until chat is done, and always heals them.
func (c *crowd) strike(chat, ctx context.Context, rnd *rand.Rand) ([]Struck, error) {
	var out []Struck
	begin := time.Now()
	for len(c.world.Faults) > 0 {
		pause(chat, time.Duration(rnd.Int64N(int64(c.cfg.Calm))))
		chosen := c.choose(rnd)
		hold := time.Duration(rnd.Int64N(int64(c.cfg.Hold)))
		if chat.Err() != nil {
			return out, ctx.Err()
		}
		var heals []func(context.Context) error
		var struck []Struck
		for _, f := range chosen {
			c.log.Info("strike", "fault", f.Name, "for", hold.Round(time.Millisecond))
			struck = append(struck, Struck{Name: f.Name, AtMS: ms(time.Since(begin))})
			heal, err := f.Strike(ctx)
			if err != nil {
				return out, fmt.Errorf("%s: %w", f.Name, err)
			}
			heals = append(heals, heal)
		}
		at := time.Now()
		pause(chat, hold)
		if err := end(ctx, time.Since(at), struck, heals); err != nil {
			return out, err
		}
		out = append(out, struck...)
	}
	<-chat.Done()
	return out, ctx.Err()
}

// end heals all faults at once: a part that was killed does not get ready before what it
// needs, which may be what the other fault took away.
func end(ctx context.Context, held time.Duration, struck []Struck, heals []func(context.Context) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, heal := range heals {
		g.Go(func() error {
			over := time.Now()
			if err := heal(ctx); err != nil {
				return fmt.Errorf("heal after %s: %w", struck[i].Name, err)
			}
			struck[i].HeldMS, struck[i].HealedMS = ms(held), ms(time.Since(over))
			return nil
		})
	}
	return g.Wait()
}

// choose picks a target and one of its faults, and sometimes a second one: what is broken
// must not follow from how many ways there are to break it. Targets take turns, in another
// order each time, and each fault of a target comes once before one comes again, so that a
// run of some minutes has them all.
func (c *crowd) choose(rnd *rand.Rand) []Fault {
	var targets []string
	of := map[string][]Fault{}
	for _, f := range c.world.Faults {
		if of[f.Target] == nil {
			targets = append(targets, f.Target)
		}
		of[f.Target] = append(of[f.Target], f)
	}
	if c.decks == nil {
		c.decks, c.turns = map[string][]Fault{}, map[string]int{}
	}
	rnd.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	slices.SortStableFunc(targets, func(a, b string) int { return c.turns[a] - c.turns[b] })
	n := 1
	if rnd.IntN(3) == 0 {
		n = min(2, len(targets))
	}
	var chosen []Fault
	for _, target := range targets[:n] {
		c.turns[target]++
		deck := c.decks[target]
		if len(deck) == 0 {
			deck = slices.Clone(of[target])
			rnd.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		chosen, c.decks[target] = append(chosen, deck[0]), deck[1:]
	}
	return chosen
}

// chat has one user send, and now and then edit, recall, react or mark as read, each until
// it has an answer.
func (c *crowd) chat(ctx, answers context.Context, p *person, rnd *rand.Rand) {
	pace := time.Duration(float64(len(c.chatty)) / c.cfg.Rate * float64(time.Second))
	var mine []string
	for _, t := range c.talks {
		if slices.Contains(t.Always, p.name) {
			mine = append(mine, t.ID)
		}
	}
	for n := 0; ; n++ {
		pause(ctx, time.Duration(rnd.Int64N(int64(2*pace))))
		if ctx.Err() != nil {
			return
		}
		conversation := mine[rnd.IntN(len(mine))]
		seq := c.book.Own(p.devices[0].name, conversation, p.name, rnd.IntN)
		k := Key{conversation, p.name, fmt.Sprintf("m%d", n)}
		switch kind := rnd.IntN(20); {
		case kind < 13 || seq == 0:
			c.insist(answers, p, Intent{Key: k, Text: fmt.Sprintf("message %d of %s", n, p.name)}, rnd)
		case kind < 16:
			k.ID = fmt.Sprintf("e%d", n)
			c.insist(answers, p, Intent{Key: k, Text: fmt.Sprintf("edit %d of %s", n, p.name), Target: seq}, rnd)
		case kind < 18:
			k.ID = recallID(seq)
			c.insist(answers, p, Intent{Key: k, Target: seq}, rnd)
		case kind < 19:
			off := rnd.IntN(3) == 0
			k.ID = reactionID(fmt.Sprintf("r%d", n), off)
			c.insist(answers, p, Intent{Key: k, Target: seq, Emoji: emojis[rnd.IntN(len(emojis))], Off: off}, rnd)
		default:
			c.mark(answers, p, conversation, seq, rnd)
		}
	}
}

// emojis are few, so that users meet.
var emojis = [...]string{"👍", "❤️", "👨‍👩‍👧‍👦"}

// marks are positions that core has answered, by user and conversation.
type marks struct {
	mu   sync.Mutex
	read map[string]int64
}

// mark says once how far a user has read; what is answered must hold from then on.
func (c *crowd) mark(ctx context.Context, p *person, conversation string, seq int64, rnd *rand.Rand) {
	got, _, err := p.users[rnd.IntN(len(p.users))].Mark(ctx, protocol.Mark{Conversation: conversation, Read: seq})
	if err != nil {
		if p.final(ctx, err) {
			c.book.Problem("%s could not mark seq %d as read: %v", p.name, seq, err)
		}
		return
	}
	c.marks.mu.Lock()
	defer c.marks.mu.Unlock()
	key := p.name + " " + conversation
	if got.Read < max(seq, c.marks.read[key]) {
		c.book.Problem("%s has read up to %d, was answered %d before, and now %d", p.name, seq, c.marks.read[key], got.Read)
	}
	c.marks.read[key] = got.Read
}

// doorkeeper adds the visitor to the room and removes it again. What it is told may be too
// late, so only the log says what took effect.
func (c *crowd) doorkeeper(ctx, answers context.Context, rnd *rand.Rand) {
	room := c.talks[c.cfg.Pairs].ID
	for in := false; ; in = !in {
		pause(ctx, time.Duration(rnd.Int64N(int64(2*time.Second))))
		if ctx.Err() != nil {
			return
		}
		err := c.again(answers, c.chatty[0], func() error {
			owner := c.chatty[0].users[rnd.IntN(len(c.chatty[0].users))]
			var err error
			if in {
				_, _, err = owner.RemoveMember(answers, room, c.visitor.name)
			} else {
				_, _, err = owner.AddMembers(answers, room, c.visitor.name)
			}
			return err
		})
		if refusal := refusalOf(err); refusal != nil && refusal.Code != protocol.CodeNotFound && !refusal.Temporary {
			c.book.Problem("the visitor could not be added or removed: %v", err)
		}
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
