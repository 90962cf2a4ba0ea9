package color

import "github.com/tracegate/tracegate/mesh/group"

// program is a list of conditions compiled to steps: each step tests one value and
// says where to go on. Running it is one loop without calls; a tree of conditions
// would be walked by recursion, and inside a Wasm VM every function that a request
// enters has to be fetched from memory, which costs more than what it does.
type program struct {
	steps []step
	start target
}

// step compares the value of a source.
type step struct {
	op      op
	of      uint32 // opPercent: buckets out of group.Buckets
	yes, no target
	from    source
	arg     string
}

// target is the index of a step or, when negative, an outcome.
type target int32

func outcome(i int) target { return target(-1 - i) }

func (t target) outcome() int { return int(-1 - t) }

// add appends the steps of m, which go on to yes or to no, and returns the first.
// Steps are made from the last to the first, so that targets are always known.
func (p *program) add(m *rule, yes, no target) target {
	switch m.op {
	case opNever:
		return no
	case opAny:
		for i := len(m.kids) - 1; i >= 0; i-- {
			no = p.add(&m.kids[i], yes, no)
		}
		return no
	case opAll:
		for i := len(m.kids) - 1; i >= 0; i-- {
			yes = p.add(&m.kids[i], yes, no)
		}
		return yes
	case opNot:
		return p.add(&m.kids[0], no, yes)
	}
	p.steps = append(p.steps, step{op: m.op, of: m.of, yes: yes, no: no, from: m.from, arg: m.arg})
	return target(len(p.steps) - 1)
}

// run returns the outcome for r. It ends: targets are made before what leads there.
func (p *program) run(r *Request) int {
	at := p.start
	for at >= 0 {
		s := &p.steps[at]
		v := r.get(int(s.from.slot))
		if v != "" && s.from.kind != fromHeader {
			v = r.inside(v, &s.from)
		}
		at = s.no
		rest := len(v) - len(s.arg)
		switch {
		case v == "" || rest < 0 && s.op != opPercent:
			continue
		case s.op == opPercent:
			if group.Bucket(s.arg, v) < s.of {
				at = s.yes
			}
			continue
		case s.op == opSuffix:
			if rest == 0 {
				continue
			}
			v = v[rest:]
		case s.op == opPrefix || rest == 0:
			v = v[:len(s.arg)]
		default:
			continue
		}
		if v == s.arg {
			at = s.yes
		}
	}
	return at.outcome()
}
