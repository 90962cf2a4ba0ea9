package chat

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/edge/load"
)

// scenarioTime bounds one scenario.
const scenarioTime = time.Minute

// scenario asks for one promise, with users of its own.
type scenario struct {
	key, claim string
	// run says what it has seen; an error is a promise that was broken.
	run func(ctx context.Context, r *room) (measured string, err error)
}

func scenarios() []scenario {
	return []scenario{
		{"order", "all devices get all entries in one order, each sender's in its own", order},
		{"exactly_once", "a message that is repeated at every door is stored and shown once", exactlyOnce},
		{"resume", "a resume at any process brings exactly what was missed, or says that it cannot", resumeRanges},
		{"devices", "the devices of a user converge, whichever edits, recalls and reads", converge},
		{"groups", "who is removed sees nothing after that, and who is added again nothing before", membership},
		{"presence", "each process knows who is connected", presenceFollows},
		{"close_codes", "each end of a connection says why, below 3500 where coming back helps", closeCodes},
	}
}

// Scenarios asks for one promise after the other.
func Scenarios(ctx context.Context, w World, log *slog.Logger) (Report, error) {
	rep := Report{Schema: Schema, Started: time.Now(), TookMS: map[string]float64{}}
	for _, s := range scenarios() {
		start := time.Now()
		p, totals, err := ask(ctx, w, s, log)
		if err != nil {
			return rep, fmt.Errorf("scenario %s: %w", s.key, err)
		}
		rep.Promises = append(rep.Promises, p)
		rep.Messages.add(totals)
		rep.TookMS[s.key] = ms(time.Since(start))
		log.Info("asked", "scenario", s.key, "held", p.Held, "took", time.Since(start).Round(time.Millisecond))
	}
	rep.Ended = time.Now()
	rep.finish()
	return rep, nil
}

func ask(ctx context.Context, w World, s scenario, log *slog.Logger) (load.Promise, Totals, error) {
	r, err := newRoom(w, log)
	if err != nil {
		return load.Promise{}, Totals{}, err
	}
	defer r.close()
	bounded, cancel := context.WithTimeout(ctx, scenarioTime)
	defer cancel()
	p := load.Promise{Key: s.key, Claim: s.claim}
	if p.Measured, err = s.run(bounded, r); err != nil {
		r.book.Problem("%s: %v", s.key, err)
	}
	totals := r.book.Verdict(r.talks)
	p.Held = err == nil && totals.OK()
	if err != nil {
		p.Measured = strings.TrimSpace(p.Measured + " " + err.Error())
	}
	return p, totals, ctx.Err()
}

// add sums verdicts up.
func (t *Totals) add(o Totals) {
	for _, n := range []struct {
		to   *int
		from int
	}{
		{&t.Asked, o.Asked}, {&t.Accepted, o.Accepted}, {&t.Refused, o.Refused}, {&t.Unknown, o.Unknown}, {&t.Stored, o.Stored},
		{&t.Entries, o.Entries}, {&t.Deliveries, o.Deliveries}, {&t.Lost, o.Lost}, {&t.Duplicated, o.Duplicated},
		{&t.OutOfOrder, o.OutOfOrder}, {&t.Gaps, o.Gaps}, {&t.Wrong, o.Wrong},
	} {
		*n.to += n.from
	}
	t.Examples = append(t.Examples, o.Examples[:min(len(o.Examples), max(0, maxExamples-len(t.Examples)))]...)
}

// setUp makes users with devices that are connected, and a group of all of them.
func (r *room) setUp(ctx context.Context, users, devices int) (people []*person, group string, err error) {
	var names []string
	for i := range users {
		names = append(names, fmt.Sprintf("u%d", i))
	}
	if people, err = r.enroll(ctx, names...); err != nil {
		return nil, "", err
	}
	if group, err = r.group(ctx, "all", people[0], people[1:]...); err != nil {
		return nil, "", err
	}
	for i, p := range people {
		r.connect(ctx, p, devices, map[string]int64{group: 0}, 0, uint64(i))
	}
	return people, group, r.live(ctx, people...)
}

// finish waits until all is quiet and reads the history.
func (r *room) finish(ctx context.Context, group string, people ...*person) ([]protocol.Message, error) {
	if err := r.quiet(ctx, people...); err != nil {
		return nil, err
	}
	history, err := r.history(ctx, people[0], group)
	t := Talk{ID: group, History: history}
	for _, p := range people {
		t.Always = append(t.Always, p.name)
	}
	r.talks = append(r.talks, t)
	return history, err
}

func text(p *person, group string, n int) Intent {
	return Intent{Key: Key{group, p.name, fmt.Sprintf("m%d", n)}, Text: fmt.Sprintf("message %d of %s", n, p.name)}
}

func order(ctx context.Context, r *room) (string, error) {
	const users, each = 4, 25
	people, group, err := r.setUp(ctx, users, 2)
	if err != nil {
		return "", err
	}
	var wg sync.WaitGroup
	for i, p := range people {
		rnd := rand.New(rand.NewPCG(1, uint64(i)))
		wg.Go(func() {
			for n := range each {
				r.insist(ctx, p, text(p, group, n), rnd)
			}
		})
	}
	wg.Wait()
	history, err := r.finish(ctx, group, people...)
	if err == nil && len(history) != users*each+1 { // and its creation
		err = fmt.Errorf("history has %d entries", len(history))
	}
	return fmt.Sprintf("%d senders, %d messages, %d devices", users, users*each, 2*users), err
}

func exactlyOnce(ctx context.Context, r *room) (string, error) {
	const messages = 20
	people, group, err := r.setUp(ctx, 2, 2)
	if err != nil {
		return "", err
	}
	sent := 0
	for n := range messages {
		i := text(people[0], group, n)
		r.book.Asked(i)
		var wg sync.WaitGroup
		for door := range r.world.doors() { // all at once, by REST and by socket
			wg.Go(func() {
				if i.rest(ctx, people[0].users[door]) == nil {
					r.book.Accepted(i.Key)
				}
			})
		}
		for _, d := range people[0].devices {
			wg.Go(func() {
				if s := d.live(); s != nil {
					if _, err := s.do(ctx, i.command()); err == nil {
						r.book.Accepted(i.Key)
					}
				}
			})
		}
		wg.Wait()
		sent += len(r.world.doors()) + len(people[0].devices)
	}
	history, err := r.finish(ctx, group, people...)
	if err == nil && len(history) != messages+1 {
		err = fmt.Errorf("%d entries for %d messages", len(history), messages)
	}
	return fmt.Sprintf("%d messages sent %d times", messages, sent), err
}

func resumeRanges(ctx context.Context, r *room) (string, error) {
	const messages = 40
	people, group, err := r.setUp(ctx, 2, 1)
	if err != nil {
		return "", err
	}
	rnd := rand.New(rand.NewPCG(3, 3))
	for n := range messages {
		r.insist(ctx, people[n%2], text(people[n%2], group, n), rnd)
	}
	history, err := r.finish(ctx, group, people...)
	if err != nil {
		return "", err
	}
	resumes := 0
	token, err := people[1].token(ctx, 0)
	if err != nil {
		return "", err
	}
	for _, door := range r.world.doors() {
		for _, at := range []int{0, 1, len(history) / 2, len(history) - 1, len(history), rnd.IntN(len(history))} {
			resumes++
			if err := resumeOnce(ctx, door, token, map[string]int64{group: int64(at)}, map[string][]protocol.Message{group: history[at:]}); err != nil {
				return "", fmt.Errorf("from %d at %s: %w", at, door, err)
			}
		}
		for name, ask := range map[string]struct {
			epoch string
			at    int64
		}{
			"another epoch":         {"of-another-time", 1},
			"a position to come":    {"", int64(len(history)) + 5},
			"a conversation unseen": {"", -1},
		} {
			positions := map[string]int64{group: ask.at}
			if ask.at < 0 {
				positions = nil
			}
			got, resumed, err := replay(ctx, door, token, ask.epoch, positions)
			switch {
			case err != nil:
				return "", fmt.Errorf("%s at %s: %w", name, door, err)
			case resumed.Recovered != (ask.at < 0) || len(got[group]) > 0:
				return "", fmt.Errorf("%s at %s: %+v with %d entries", name, door, resumed, len(got[group]))
			}
		}
	}
	return fmt.Sprintf("%d ranges of %d entries, %d that cannot be", resumes, len(history), 2*len(r.world.doors())), nil
}

func converge(ctx context.Context, r *room) (string, error) {
	people, group, err := r.setUp(ctx, 2, 3)
	if err != nil {
		return "", err
	}
	var wg sync.WaitGroup
	for i, p := range people {
		rnd := rand.New(rand.NewPCG(4, uint64(i)))
		wg.Go(func() {
			for n := range 30 {
				r.insist(ctx, p, text(p, group, n), rnd)
				seq := r.book.Own(p.devices[n%3].name, group, p.name, rnd.IntN)
				switch {
				case seq == 0:
				case n%3 == 0:
					r.insist(ctx, p, Intent{Key: Key{group, p.name, fmt.Sprintf("e%d", n)}, Text: fmt.Sprintf("edit %d of %s", n, p.name), Target: seq}, rnd)
				case n%5 == 0:
					r.insist(ctx, p, Intent{Key: Key{group, p.name, recallID(seq)}, Target: seq}, rnd)
				}
			}
		})
	}
	wg.Wait()
	history, err := r.finish(ctx, group, people...)
	if err != nil {
		return "", err
	}
	// Each device says how far it has read, the furthest not last.
	reader := people[1]
	head := int64(len(history))
	for i, seq := range []int64{1, head, head / 2} {
		s := reader.devices[i].live()
		if s == nil {
			return "", fmt.Errorf("%s has no connection", reader.devices[i].name)
		}
		f, err := s.do(ctx, protocol.Command{Mark: &protocol.Mark{Conversation: group, Read: seq}})
		if err != nil || f.Receipt == nil || f.Receipt.Read < seq {
			return "", fmt.Errorf("mark %d as read: %+v, %w", seq, f.Receipt, err)
		}
	}
	for door, u := range reader.users {
		c, _, err := u.Conversation(ctx, group)
		if err != nil || c.Read != head || c.Unread != 0 {
			return "", fmt.Errorf("at door %d: read %d of %d, %d unread, %w", door, c.Read, head, c.Unread, err)
		}
	}
	return fmt.Sprintf("%d entries on %d devices, read up to %d from three of them", len(history), 6, head), nil
}

func membership(ctx context.Context, r *room) (string, error) {
	people, group, err := r.setUp(ctx, 2, 1)
	if err != nil {
		return "", err
	}
	guests, err := r.enroll(ctx, "guest")
	if err != nil {
		return "", err
	}
	owner, guest := people[0], guests[0]
	r.connect(ctx, guest, 2, nil, 0, 9)
	if err := r.live(ctx, guest); err != nil {
		return "", err
	}
	rnd := rand.New(rand.NewPCG(5, 5))
	n := 0
	say := func(times int) {
		for range times {
			r.insist(ctx, people[n%2], text(people[n%2], group, n), rnd)
			n++
		}
	}
	const rounds = 4
	for round := range rounds {
		say(3)
		if _, _, err := owner.users[round%len(owner.users)].AddMembers(ctx, group, guest.name); err != nil {
			return "", fmt.Errorf("add: %w", err)
		}
		say(3)
		if _, _, err := owner.users[(round+1)%len(owner.users)].RemoveMember(ctx, group, guest.name); err != nil {
			return "", fmt.Errorf("remove: %w", err)
		}
	}
	say(3)
	history, err := r.finish(ctx, group, people...)
	if err != nil {
		return "", err
	}
	// The guest must have got all it may see, its last removal included, and may not send.
	may, _ := visible(r.talks[0], guest.name)
	var want []int64
	for _, m := range history {
		if may[m.Seq] {
			want = append(want, m.Seq)
		}
	}
	for _, d := range guest.devices {
		var got []int64
		for ctx.Err() == nil {
			got = got[:0]
			for _, m := range r.book.Got(d.name, group) {
				got = append(got, m.Seq)
			}
			if len(got) >= len(want) {
				break
			}
			pause(ctx, 10*time.Millisecond)
		}
		if !slices.Equal(got, want) {
			return "", fmt.Errorf("%s got %v, may see %v", d.name, got, want)
		}
	}
	for door, u := range guest.users {
		if err := text(guest, group, 999).rest(ctx, u); refusalOf(err) == nil || refusalOf(err).Temporary {
			return "", fmt.Errorf("who was removed sends at door %d: %w", door, err)
		}
	}
	return fmt.Sprintf("added and removed %d times; saw %d of %d entries", rounds, len(want), len(history)), nil
}

func presenceFollows(ctx context.Context, r *room) (string, error) {
	people, err := r.enroll(ctx, "asker", "asked")
	if err != nil {
		return "", err
	}
	asker, asked := people[0], people[1]
	agree := func(want bool) (time.Duration, error) {
		start := time.Now()
		for {
			agreed := 0
			for door := range r.world.doors() {
				known, online, err := r.online(ctx, asker, door, asked.name)
				if err == nil && known && online == want {
					agreed++
				}
			}
			if agreed == len(r.world.doors()) {
				return time.Since(start), nil
			}
			if ctx.Err() != nil {
				return 0, fmt.Errorf("online %v: only %d of %d agree", want, agreed, len(r.world.doors()))
			}
			pause(ctx, 10*time.Millisecond)
		}
	}
	var longest time.Duration
	for round := range 3 {
		if _, err := agree(false); err != nil {
			return "", err
		}
		asked.devices = nil
		r.connect(ctx, asked, 1+round, nil, 0, uint64(round)) // on one process, then on several
		if err := r.live(ctx, asked); err != nil {
			return "", err
		}
		on, err := agree(true)
		if err != nil {
			return "", err
		}
		asked.hangUp()
		off, err := agree(false)
		if err != nil {
			return "", err
		}
		longest = max(longest, on, off)
	}
	return fmt.Sprintf("3 times on and off; all %d doors agree within %d ms", len(r.world.doors()), longest.Milliseconds()), nil
}

func closeCodes(ctx context.Context, r *room) (string, error) {
	people, err := r.enroll(ctx, "closed")
	if err != nil {
		return "", err
	}
	token, err := people[0].token(ctx, 0)
	if err != nil {
		return "", err
	}
	cases := []struct {
		name string
		kind int
		send []byte
		want int
	}{
		{"not JSON", websocket.TextMessage, []byte("hello"), protocol.CloseProtocol},
		{"no id", websocket.TextMessage, []byte(`{"ping":{}}`), protocol.CloseProtocol},
		{"an unknown field", websocket.TextMessage, []byte(`{"id":1,"pong":{}}`), protocol.CloseProtocol},
		{"a command and half of one", websocket.TextMessage, []byte("{\"id\":1,\"ping\":{}}\n{\"id\":2,"), protocol.CloseProtocol},
		{"binary", websocket.BinaryMessage, []byte{1, 2, 3}, protocol.CloseProtocol},
		{"not UTF-8", websocket.TextMessage, []byte("{\"id\":1,\"send\":{\"text\":\"\xff\"}}"), websocket.CloseInvalidFramePayloadData},
		{"too large", websocket.TextMessage, []byte(strings.Repeat("x", 1<<20)), websocket.CloseMessageTooBig},
		{"goodbye", websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), websocket.CloseNormalClosure},
	}
	for _, door := range r.world.doors() {
		for _, c := range cases {
			got, err := closedWith(ctx, door, token, c.kind, c.send)
			if err != nil || got != c.want {
				return "", fmt.Errorf("%s at %s: closed with %d, %w, want %d", c.name, door, got, err, c.want)
			}
		}
		if s, err := dial(ctx, door, token+"x", 10*time.Second); refusalOf(err) == nil || refusalOf(err).Code != protocol.CodeUnauthenticated {
			if err == nil {
				s.hangUp()
			}
			return "", fmt.Errorf("a false token at %s: %w", door, err)
		}
	}
	return fmt.Sprintf("%d ways to end, at %d doors", len(cases)+1, len(r.world.doors())), nil
}

// closedWith sends one frame and says with which code the connection is closed.
func closedWith(ctx context.Context, door, token string, kind int, frame []byte) (int, error) {
	s, err := dial(ctx, door, token, 10*time.Second)
	if err != nil {
		return 0, err
	}
	defer s.hangUp()
	if err := s.writeRaw(kind, frame); err != nil {
		return 0, err
	}
	for {
		_, err := s.next(10 * time.Second)
		if closed, ok := asClose(err); ok {
			return closed.Code, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
