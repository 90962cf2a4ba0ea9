package policy

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Limit is a rate that all edges count together. Rules name it; what several rules name
// is one limit for all of them. Without room requests get 429.
type Limit struct {
	Name string `yaml:"name"`
	// Per says for whom there is a count: any of user, tenant, group, address and
	// header:NAME, together; one for everybody where empty. Requests that do not have
	// it, such as those without a session, share one.
	Per      []string `yaml:"per,omitempty"`
	Requests uint32   `yaml:"requests"`         // in any Unit, as a sliding window
	Unit     string   `yaml:"unit,omitempty"`   // second, minute, hour or day; second where empty
	Shadow   bool     `yaml:"shadow,omitempty"` // counts and refuses nothing
	// Failure says what happens while counts are not to be had: open (the default) lets
	// requests pass, closed answers 429.
	Failure Failure `yaml:"failure,omitempty"`
}

// Units of a limit.
var units = map[string]time.Duration{"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour}

// Window is the duration of the unit.
func (l Limit) Window() time.Duration { return units[l.Unit] }

// LimitHeader is before the name of a header in [Limit.Per].
const LimitHeader = "header:"

// Addresses says by address who may ask: who is denied, or not among those that are
// allowed, gets 403. It is the address of the client as the edge knows it: its peer,
// or, behind trusted proxies, what they say (edge.trusted_hops).
type Addresses struct {
	Allow []string `yaml:"allow,omitempty"` // addresses and CIDRs; everybody where empty
	Deny  []string `yaml:"deny,omitempty"`  // wins over Allow
}

var errBits = errors.New("bits behind the prefix are not zero")

const (
	maxLimits     = 200
	maxRuleLimits = 8
	maxAddresses  = 500 // of one rule
)

// checkLimits also fills in what the document left to defaults.
func (d *document) checkLimits(p *Policy) {
	if len(p.Limits) > maxLimits {
		d.invalid("limits", "%d limits, more than %d", len(p.Limits), maxLimits)
		return
	}
	names := map[string]bool{}
	for i := range p.Limits {
		l, at := &p.Limits[i], index("limits", i)
		d.checkName(at+".name", l.Name)
		if names[l.Name] {
			d.invalid(at+".name", "limit %q appears twice", l.Name)
		}
		names[l.Name] = true
		if l.Unit == "" {
			l.Unit = "second"
		}
		if l.Failure == "" {
			l.Failure = FailOpen
		}
		if units[l.Unit] == 0 {
			d.invalid(at+".unit", "%q is none of second, minute, hour and day", clip(l.Unit))
		}
		if l.Failure != FailOpen && l.Failure != FailClosed {
			d.invalid(at+".failure", "%q is neither %q nor %q", clip(string(l.Failure)), FailOpen, FailClosed)
		}
		if l.Requests == 0 || l.Requests > 1_000_000_000 {
			d.invalid(at+".requests", "%d is not between 1 and 1000000000", l.Requests)
		}
		d.checkPer(at+".per", l.Per)
	}
	// Of every version anew: a service that stands as it stood may name a limit that is gone.
	for i, s := range p.Services {
		for j := range s.Rules {
			r := &s.Rules[j]
			if len(r.Limits) == 0 {
				continue
			}
			at := index(index("services", i)+".rules", j) + ".limits"
			if len(r.Limits) > maxRuleLimits {
				d.invalid(at, "%d limits, more than %d", len(r.Limits), maxRuleLimits)
				continue
			}
			for k, name := range r.Limits {
				if !names[name] {
					d.invalid(index(at, k), "no limit %q", clip(name))
				}
				if slices.Contains(r.Limits[:k], name) {
					d.invalid(index(at, k), "limit %q appears twice", clip(name))
				}
			}
		}
	}
}

func (d *document) checkPer(at string, per []string) {
	if len(per) > 4 {
		d.invalid(at, "%d keys, more than 4", len(per))
		return
	}
	for i, key := range per {
		header, isHeader := strings.CutPrefix(key, LimitHeader)
		switch {
		case isHeader:
			d.checkHeaderName(index(at, i), header)
		case !slices.Contains([]string{"user", "tenant", "group", "address"}, key):
			d.invalid(index(at, i), "%q is none of user, tenant, group, address and header:NAME", clip(key))
		}
		if slices.Contains(per[:i], key) {
			d.invalid(index(at, i), "%q appears twice", clip(key))
		}
	}
}

func (d *document) checkAddressRule(at string, a *Addresses) {
	if a == nil {
		return
	}
	if n := len(a.Allow) + len(a.Deny); n == 0 || n > maxAddresses {
		d.invalid(at, "%d addresses, not 1 to %d", n, maxAddresses)
		return
	}
	for key, list := range map[string][]string{".allow": a.Allow, ".deny": a.Deny} {
		for i, s := range list {
			if _, err := Prefix(s); err != nil {
				d.invalid(index(at+key, i), "%q is neither an IP address nor a CIDR such as 10.0.0.0/8", clip(s))
			}
		}
	}
}

// Prefix reads an address or a CIDR, whose bits behind the prefix must be zero.
func Prefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Prefix(addr.BitLen())
	}
	p, err := netip.ParsePrefix(s)
	if err == nil && p != p.Masked() {
		return p, errBits
	}
	return p, err
}
