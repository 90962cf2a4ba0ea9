package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"go.yaml.in/yaml/v3"
)

// digest is of a service's text as YAML understands it.
type digest [sha256.Size]byte

// knownService is a service that was decoded and checked.
type knownService struct {
	service Service
	keys    []string // of its rules' matches
}

// recall takes a service from the last version where it is the same there. Lines and
// comments do not count.
func (d *document) recall(n *yaml.Node, s *Service) bool {
	d.text = appendNode(d.text[:0], n)
	sum := digest(sha256.Sum256(d.text))
	d.digests = append(d.digests, sum)
	k, ok := d.known[sum]
	if ok {
		*s = k.service
	}
	return ok
}

// isKnown says whether the service at an index needs no check by itself.
func (d *document) isKnown(i int) (knownService, bool) {
	k, ok := d.known[d.digests[i]]
	return k, ok
}

// learned is what the next version may take over: services whose rules need no other
// and no cohort.
func (d *document) learned(p Policy) map[digest]knownService {
	out := make(map[digest]knownService, len(p.Services))
	for i, s := range p.Services {
		foreign := func(r Rule) bool {
			return r.Service != s.Name || slices.ContainsFunc(r.Match, func(m Match) bool { return m.Cohort != "" })
		}
		if !slices.ContainsFunc(s.Rules, foreign) {
			out[d.digests[i]] = knownService{service: s, keys: d.keys[i]}
		}
	}
	return out
}

func appendNode(b []byte, n *yaml.Node) []byte {
	b = append(b, byte(n.Kind), byte(n.Style))
	for _, s := range []string{n.Anchor, n.Tag, n.Value} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(len(n.Content)))
	for _, c := range n.Content {
		b = appendNode(b, c)
	}
	return b
}
