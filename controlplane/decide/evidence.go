package decide

import (
	"math"
	"time"

	"github.com/tracegate/tracegate/observability/sli"
)

// What a healthy group is entitled to, even where its baseline has less: no two groups
// are quite alike.
const (
	errorAllowance = 0.1   // of the error ratio that the objective allows
	slowAllowance  = 0.001 // of requests above the objective, which allows one in twenty
)

// stallChance is how improbable the requests above the objective must be for a slower
// median to count in the quick window. A pool that stands still for a few tenths of a second
// delays half of what it is asked within one, and the test takes that for many requests that
// are slow each by itself; but few of them break the objective, which a fault does with all.
const stallChance = 0.001

// chances are how probable it is that a group which is like what it is compared with
// looks as bad; infinite, so that no significance lets it pass, where it is not worse.
type chances struct {
	errors float64 // as many errors
	above  float64 // as many requests above the objective of latency
	median float64 // as many requests above the group's P50, which is half of them
	tail   float64 // as many requests above the objective of P99
}

// slow is the chance of either of two, of which the better one was taken.
func (c chances) slow() float64 { return 2 * min(c.above, c.median) }

func (c chances) any() float64 { return min(c.errors, c.slow(), c.tail) }

// best is the smallest, and what was counted for it (see [Evidence]); nothing where the
// group is not worse.
func (c chances) best() (chance float64, test string) {
	switch chance = c.any(); {
	case math.IsInf(chance, 1):
		return chance, ""
	case chance == c.errors:
		return chance, "errors"
	case chance == c.tail:
		return chance, "slowest requests"
	case c.above <= c.median:
		return chance, "slow requests"
	}
	return chance, "slower requests"
}

// chances compares st with others in the same window; ref is what they got over the
// long one.
func (e *evaluation) chances(st, others, ref sli.Stats) chances {
	errors, slow, tail := e.worse(st, others)
	return e.chancesOf(errors, slow, tail, st, others, ref)
}

// chancesOf compares in what is asked for; without others it is held against what every
// group is entitled to.
func (e *evaluation) chancesOf(errors, slow, tail bool, st, others, ref sli.Stats) chances {
	never := math.Inf(1)
	c := chances{never, never, never, never}
	if errors {
		c.errors = e.errorChance(st, others, ref)
	}
	if slow {
		c.above = e.slowChance(st, others, ref, e.MaxP95)
		if others.Requests > 0 {
			c.median = e.slowChance(st, others, ref, st.P50)
		}
	}
	if tail {
		c.tail = e.slowChance(st, others, ref, e.MaxP99)
	}
	return c
}

// errorChance is how probable it is that a group which fails as often as what it is
// compared with has as many errors as st.
func (e *evaluation) errorChance(st, base, ref sli.Stats) float64 {
	p := errorAllowance * e.MaxErrorRatio
	if base.Requests > 0 {
		p = max(p, (float64(base.Errors)-1)/float64(base.Requests), float64(ref.Errors+1)/float64(ref.Requests+1))
	}
	return atLeast(st.Errors, st.Requests, p)
}

// MoreErrors is how probable it is that one who fails as often as others do in the same
// seconds, and as it did before, has as many errors as st, and whether that is improbable
// enough: infinite, and false, where st keeps the objective, or is not worse than what it
// is compared with by as much as the policy asks for. What has fewer than MinRequests is
// compared with nothing, and nothing with it; without anything to compare with st is held
// against what everyone is entitled to.
func (p Policy) MoreErrors(st, others, before sli.Stats) (chance float64, sure bool) {
	e := evaluation{Policy: p}
	var known []sli.Stats
	for _, c := range []sli.Stats{others, before} {
		if c.Requests >= p.MinRequests {
			known = append(known, c)
		}
	}
	if st.Requests < p.MinRequests || st.ErrorRatio() <= p.MaxErrorRatio {
		return math.Inf(1), false
	}
	for _, c := range known {
		if st.ErrorRatio()-c.ErrorRatio() < p.ErrorRatioDifference {
			return math.Inf(1), false
		}
	}
	switch len(known) {
	case 0:
		chance = e.errorChance(st, sli.Stats{}, sli.Stats{})
	case 1:
		chance = e.errorChance(st, known[0], known[0])
	default:
		chance = e.errorChance(st, others, before)
	}
	return chance, e.sure(chance)
}

// slowChance is how probable it is that a group which is as fast as what it is compared
// with has as many requests slower than d as st. As fast means: slower by half of
// P95Factor, on a logarithmic scale, at most.
func (e *evaluation) slowChance(st, base, ref sli.Stats, d time.Duration) float64 {
	p, same := slowAllowance, time.Duration(float64(d)/math.Sqrt(e.P95Factor))
	if base.Requests > 0 {
		seen := float64(ref.Requests)
		p = max(p, slower(base, same), (slower(ref, same)*seen+1)/(seen+1))
	}
	return atLeast(uint64(slower(st, d)*float64(st.Requests)), st.Requests, p)
}

// atLeast is the probability of k or more out of n, each with probability p: a binomial
// tail.
func atLeast(k, n uint64, p float64) float64 {
	switch {
	case k == 0 || p >= 1:
		return 1
	case k > n || p <= 0:
		return 0
	case float64(k) <= p*float64(n):
		return 1 // not worth a sum: more than a third
	}
	lg := func(v uint64) float64 { l, _ := math.Lgamma(float64(v) + 1); return l }
	term := math.Exp(lg(n) - lg(k) - lg(n-k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	sum := term
	// Each term is smaller than the last by more than the one before.
	for i := k; i < n && term > sum*1e-6; i++ {
		term *= float64(n-i) / float64(i+1) * p / (1 - p)
		sum += term
	}
	return min(1, sum)
}

// Standard normal quantiles of the percentiles that are measured.
const (
	z95 = 1.6449
	z99 = 2.3263
)

// slower is the share of requests that took longer than d, read off the percentiles:
// lognormal between them, and beyond the last a Pareto tail, which is never thinner.
func slower(st sli.Stats, d time.Duration) float64 {
	if st.Requests == 0 || d <= 0 {
		return 0
	}
	p50, p95, p99 := logOf(st.P50), logOf(st.P95), logOf(st.P99)
	switch v := logOf(d); {
	case v < p50:
		return 0.5 + 0.5*min(1, (p50-v)/max(p95-p50, 0.05)) // coarse: nobody asks for it
	case v < p95:
		return above(z95 * (v - p50) / (p95 - p50))
	case v < p99:
		return above(z95 + (z99-z95)*(v-p95)/(p99-p95))
	case p99 <= p95:
		return 0.01
	default:
		return 0.01 * math.Exp(-math.Log(5)*(v-p99)/(p99-p95))
	}
}

func logOf(d time.Duration) float64 { return math.Log(max(1, float64(d))) }

// above is the share of a standard normal above z.
func above(z float64) float64 { return 0.5 * math.Erfc(z/math.Sqrt2) }
