package policy

import "reflect"

// Touched are the services whose requests an update from old to p can treat in another
// way: those that are not as they were, those that their rules name, and all of them where
// something has changed that concerns every request.
func (p *Policy) Touched(old *Policy) map[string]bool {
	out := map[string]bool{}
	general := func(p *Policy) []any { return []any{p.Color, p.Failure, p.Limits, p.JWT, p.CohortPools, p.TLS} }
	everything := !reflect.DeepEqual(general(p), general(old))
	before := make(map[string]Service, len(old.Services))
	for _, s := range old.Services {
		before[s.Name] = s
	}
	for _, s := range p.Services {
		was, had := before[s.Name]
		delete(before, s.Name)
		if had && !everything && reflect.DeepEqual(s, was) {
			continue
		}
		touch(out, s)
		touch(out, was)
	}
	for _, gone := range before {
		touch(out, gone)
	}
	delete(out, "")
	return out
}

func touch(out map[string]bool, s Service) {
	out[s.Name] = true
	for _, r := range s.Rules {
		out[r.Service] = true
	}
}
