package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/tracegate/tracegate/core/presence"
)

// Who is connected is kept under three keys for each user, all of one hash slot:
//
//	user:{id}:state          hash: process -> status|timestamp|version (core/presence)
//	user:{id}:sockets        hash: process -> connections
//	user:{id}:lease:process  the life of the process, SET NX PX PresenceTTL
//
// Each process writes of itself only, by say, which is core/presence's merge as a script:
// an element that is not later than the one there changes nothing and is answered with
// that one, so that the clock here can go past it. Where the clock will not go so far, as
// after one that was an hour ahead has been put right, that element is replaced: nobody else
// writes it, so it is of a life of this process that has ended.
//
// A lease is taken once and renewed while the user is here. The elements of a process that
// died count for nothing without it. They are there until the state itself expires or, where
// the user is always somewhere, until a process speaks of the user for the first time.
//
// Scripts name a lease from the elements they have read, so it is not among their KEYS.
// Redis and Valkey allow that within one slot, which the hash tag {id} sees to.

// merged is the beginning of both scripts: the newer of two elements, by stamp and life,
// then by status, where "online" is above "offline" as text too.
const merged = `
local function later(a, b)
	local x, y = string.sub(a, string.find(a, '|', 1, true) + 1), string.sub(b, string.find(b, '|', 1, true) + 1)
	if x ~= y then return x > y end
	return a > b
end
`

// sayScript takes in what a process says of a user.
//
//	KEYS state, sockets, lease; ARGV process, element, life, connections, lease in ms, 1 where these may be fewer,
//	the element to be replaced though it is later, the stamp before which those without a lease are forgotten
//
// Connections only grow, unless some have gone: what is said may be older than a claim.
// It returns the element that holds: another one than was said where that is later.
//
//nolint:gochecknoglobals // a constant
var sayScript = redis.NewScript(merged + `
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old and old ~= ARGV[7] and later(old, ARGV[2]) then return old end
if redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) == 1 then
	local leases, all = string.sub(KEYS[3], 1, #KEYS[3] - #ARGV[1]), redis.call('HGETALL', KEYS[1])
	for i = 1, #all, 2 do
		local stamp = string.match(all[i + 1], '|(%x+)|')
		if all[i] ~= ARGV[1] and stamp and stamp < ARGV[8] and redis.call('EXISTS', leases .. all[i]) == 0 then
			redis.call('HDEL', KEYS[1], all[i])
		end
	end
end
if string.sub(ARGV[2], 1, 7) == 'online|' then
	if not redis.call('SET', KEYS[3], ARGV[3], 'NX', 'PX', ARGV[5]) then
		redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[5])
	end
	if ARGV[6] == '1' or tonumber(ARGV[4]) > tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0') then
		redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
	end
else
	redis.call('DEL', KEYS[3])
	redis.call('HDEL', KEYS[2], ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5] * 10)
redis.call('PEXPIRE', KEYS[2], ARGV[5] * 10)
return ARGV[2]`)

// claimScript counts the connections that a user has elsewhere, forgets those of processes
// without a lease, and where there is room notes those here. Redis runs one script at a time,
// so of two processes that ask at once the second sees the first. Of claims of one process
// that come the wrong way round the largest stays, until say puts it right.
//
//	KEYS sockets; ARGV process, connections here with the new one, limit, prefix of leases, ms to keep, life, lease in ms
//
// It returns how many there are elsewhere, or -1 where that is too many.
//
//nolint:gochecknoglobals // a constant
var claimScript = redis.NewScript(`
local all = redis.call('HGETALL', KEYS[1])
local elsewhere = 0
for i = 1, #all, 2 do
	if all[i] == ARGV[1] then
	elseif redis.call('EXISTS', ARGV[4] .. all[i]) == 1 then
		elsewhere = elsewhere + tonumber(all[i + 1])
	else
		redis.call('HDEL', KEYS[1], all[i])
	end
end
if elsewhere + tonumber(ARGV[2]) > tonumber(ARGV[3]) then return -1 end
local known = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
if known < tonumber(ARGV[2]) or redis.call('GET', ARGV[4] .. ARGV[1]) ~= ARGV[6] then
	redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
redis.call('SET', ARGV[4] .. ARGV[1], ARGV[6], 'NX', 'PX', ARGV[7])
return elsewhere`)

func (f *Fanout) key(user, what string) string { return f.cfg.Prefix + ":user:{" + user + "}:" + what }

func (f *Fanout) lease(user, node string) string { return f.key(user, "lease:"+node) }

// seats is what is to be said of a user.
type seats struct {
	user  string
	n     int    // connections here
	fewer bool   // some may have gone
	past  string // the element of a life before that it replaces
}

// presenceLoop says again and again which users are connected here, and at once when
// one comes or goes.
func (f *Fanout) presenceLoop(ctx context.Context) {
	t := time.NewTicker(f.cfg.PresenceTTL / 3)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f.sayAll(ctx, f.present())
		case user := <-f.changed:
			users := []string{user}
			for len(users) < batch && len(f.changed) > 0 {
				users = append(users, <-f.changed)
			}
			f.sayAll(ctx, f.seatsOf(users))
		case <-ctx.Done():
			// An orderly stop: nobody is here any more.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.cfg.Timeout)
			defer cancel()
			gone := f.present()
			for i := range gone {
				gone[i].n = 0
			}
			f.sayAll(ctx, gone)
			return
		}
	}
}

// present are all users who are connected here.
func (f *Fanout) present() []seats {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]seats, 0, len(f.users))
	for u, n := range f.users {
		out = append(out, seats{user: u, n: n, fewer: true})
	}
	clear(f.fewer)
	return out
}

func (f *Fanout) seatsOf(users []string) []seats {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]seats, 0, len(users))
	for _, u := range users {
		_, fewer := f.fewer[u]
		delete(f.fewer, u)
		out = append(out, seats{user: u, n: f.users[u], fewer: fewer})
	}
	return out
}

// sayAll says it batch by batch. What cannot be said now is said by the next round; where
// nothing can, the rest of this one is left out.
func (f *Fanout) sayAll(ctx context.Context, all []seats) {
	for part := range slices.Chunk(all, batch) {
		if f.say(ctx, part) != nil {
			f.metrics.presenceErrors.Inc()
			return
		}
	}
}

// say writes whether users are here. Where something later is there already, as what a
// life before this one has said by a faster clock, it says it again after that, or in its
// place. It fails where nobody answers; of a cluster some may not.
func (f *Fanout) say(ctx context.Context, part []seats) error {
	for range 3 {
		answers, err := f.sayOnce(ctx, part)
		if err != nil {
			return err
		}
		var again []seats
		for i, a := range answers {
			if a.said == a.holds {
				continue
			}
			e, err := presence.Parse(a.holds)
			if err != nil {
				f.metrics.presenceErrors.Inc() // the next round, or the end of its key
				continue
			}
			s := part[i]
			if !f.clock.Saw(e.Stamp) {
				s.past = a.holds
			}
			again = append(again, s)
		}
		if part = again; len(part) == 0 {
			return nil
		}
	}
	return errors.New("say presence: something later is always there")
}

// answer is the element that was said and the one that holds; that is empty where no
// answer came.
type answer struct{ said, holds string }

// sayOnce runs one pipeline; servers that do not know the script yet are given it.
func (f *Fanout) sayOnce(ctx context.Context, part []seats) ([]answer, error) {
	for try := 0; ; try++ {
		out := make([]answer, len(part))
		forgotten := f.forgotten()
		cmds := make([]*redis.Cmd, len(part))
		_, err := f.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, s := range part {
				e := presence.Element{Online: s.n > 0, Stamp: f.clock.Next(), Life: f.life}
				out[i].said = e.String()
				keys := []string{f.key(s.user, "state"), f.key(s.user, "sockets"), f.lease(s.user, f.node)}
				cmds[i] = sayScript.EvalSha(ctx, p, keys, f.node, out[i].said, f.life, s.n, f.cfg.PresenceTTL.Milliseconds(), s.fewer, s.past, forgotten)
			}
			return nil
		})
		if err == nil || try > 0 || !unknownScript(cmds) {
			answered := false
			for i, c := range cmds {
				if text, err := c.Text(); err == nil {
					out[i].holds, answered = text, true
				}
			}
			if !answered && err != nil {
				return nil, fmt.Errorf("say presence: %w", err)
			}
			return out, nil
		}
		_ = sayScript.Load(ctx, f.client).Err() // one of a cluster may be away; what follows says
	}
}

// forgotten is the stamp before which what a process without a lease has said is forgotten,
// as scripts compare it.
func (f *Fanout) forgotten() string {
	return fmt.Sprintf("%016x", uint64(presence.At(f.clock.Next().Time().Add(-10*f.cfg.PresenceTTL))))
}

func unknownScript(cmds []*redis.Cmd) bool {
	return slices.ContainsFunc(cmds, func(c *redis.Cmd) bool {
		return c != nil && c.Err() != nil && strings.HasPrefix(c.Err().Error(), "NOSCRIPT")
	})
}

// Online says on how many processes a user is connected, as far as Redis knows: after a
// failure of Redis a user may be missing for a third of PresenceTTL, and one whose
// process died stays for PresenceTTL.
func (f *Fanout) Online(ctx context.Context, user string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	set, err := f.state(ctx, user)
	if err != nil || len(set) == 0 {
		return 0, err
	}
	leases := map[string]*redis.IntCmd{}
	_, err = f.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for node, e := range set {
			if e.Online {
				leases[node] = p.Exists(ctx, f.lease(user, node))
			}
		}
		return nil
	})
	if err != nil && len(leases) > 0 {
		return 0, fmt.Errorf("read leases: %w", err)
	}
	return set.Online(func(node string) bool { return leases[node].Val() == 1 }), nil
}

// state is what is written of a user.
func (f *Fanout) state(ctx context.Context, user string) (presence.Set, error) {
	raw, err := f.client.HGetAll(ctx, f.key(user, "state")).Result()
	if err != nil {
		return nil, fmt.Errorf("read presence: %w", err)
	}
	set := presence.Set{}
	for node, text := range raw {
		if e, err := presence.Parse(text); err == nil { // else it is not ours, and ends with its key
			set[node] = e
		}
	}
	return set, nil
}

// Claim says whether a user who would have a number of connections here stays within a
// limit together with those on other processes, as far as Redis knows: where it does not
// answer within Timeout, everybody is let in, and each process still has its own limit.
func (f *Fanout) Claim(ctx context.Context, user string, mine, limit int) bool {
	if !f.Healthy() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	n, err := claimScript.Run(ctx, f.client, []string{f.key(user, "sockets")}, f.node, mine, limit, f.key(user, "lease:"),
		strconv.FormatInt(10*f.cfg.PresenceTTL.Milliseconds(), 10), f.life, f.cfg.PresenceTTL.Milliseconds()).Int()
	if err != nil {
		f.metrics.presenceErrors.Inc()
		return true
	}
	return n >= 0
}

// Seated says how many connections a user has here now. It does not wait.
func (f *Fanout) Seated(user string, n int) {
	f.mu.Lock()
	had, here := f.users[user]
	if here && n > 0 {
		if f.users[user] = n; n < had {
			f.fewer[user] = struct{}{}
		}
	}
	f.mu.Unlock()
	if here {
		f.tell(user)
	}
}

// tell has the presence of a user said soon.
func (f *Fanout) tell(user string) {
	select {
	case f.changed <- user:
	default: // the next round says it
	}
}
