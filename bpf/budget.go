package bpf

import "fmt"

// budget says what a probe may cost.
type budget struct {
	share    float64 // of one core
	patience int     // readings over it in a row before anything happens
	maxShift uint    // one event in 2^maxShift is the least it samples
}

// spending is what the budget remembers about one probe.
type spending struct {
	Shift uint // it looks at one event in 2^Shift
	Off   bool
	over  int
	under int
}

// next judges one reading. The notice says what has changed and why; empty: nothing.
//
// Over budget it halves the sample; when the smallest sample is still too dear it goes
// off, for good: what costs more than a hundredth of a core at one event in 64 costs
// it by being called at all. Under a quarter of the budget it doubles the sample.
func (b budget) next(s spending, share float64) (spending, string) {
	if s.Off {
		return s, ""
	}
	switch {
	case share > b.share:
		s.over, s.under = s.over+1, 0
	case share < b.share/4:
		s.over, s.under = 0, s.under+1
	default:
		s.over, s.under = 0, 0
	}
	cost := fmt.Sprintf("%.2f%% of a core, budget %.2f%%", share*100, b.share*100)
	switch {
	case s.over >= b.patience && s.Shift >= b.maxShift:
		s.Off, s.over = true, 0
		return s, fmt.Sprintf("switched off: %s, even at one event in %d", cost, 1<<s.Shift)
	case s.over >= b.patience:
		s.Shift, s.over = s.Shift+1, 0
		return s, fmt.Sprintf("samples one event in %d: %s", 1<<s.Shift, cost)
	case s.under >= 5*b.patience && s.Shift > 0:
		s.Shift, s.under = s.Shift-1, 0
		return s, fmt.Sprintf("samples one event in %d again: %s", 1<<s.Shift, cost)
	}
	return s, ""
}
