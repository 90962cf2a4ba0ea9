package controlplane

import (
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/durable"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
)

// keys are what identity providers showed last, by the URL they showed it at. They outlive
// this process: a provider that is away at its start locks nobody out. The loop owns it.
type keys struct {
	path    string
	signing []byte // key of the file
	metrics *metrics
	log     *slog.Logger

	good   map[string]string // replaced, never edited: plans share it
	errs   map[string]string // why what is in use is not the newest
	loaded map[string]time.Time
	aimed  []source.KeySet
}

const keysFile = "jwks.json"

func newKeys(m *metrics, log *slog.Logger) *keys {
	return &keys{metrics: m, log: log, good: map[string]string{}, errs: map[string]string{}, loaded: map[string]time.Time{}}
}

// load takes over what the last run had. A file that cannot be used is as good as none:
// providers are asked at once.
func (k *keys) load(path string, signing []byte) {
	k.path, k.signing = path, signing
	good := map[string]string{}
	if err := durable.LoadSigned(path, signing, &good); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			k.metrics.durable.WithLabelValues(keysFile).Inc()
			k.log.Error("keys of identity providers that were kept are not used", "error", err)
		}
		return
	}
	k.good = good
}

// aim is what to ask for, and whether that has changed. What no policy names any more is
// forgotten; nil policies are none.
func (k *keys) aim(certificates map[string]certificate.Pair, policies ...*policy.Policy) ([]source.KeySet, bool) {
	var want []source.KeySet
	named := map[string]bool{}
	for _, p := range policies {
		if p == nil {
			continue
		}
		for _, j := range p.JWT {
			if j.JWKSURL == "" || named[j.JWKSURL] {
				continue
			}
			named[j.JWKSURL] = true
			s := source.KeySet{URL: j.JWKSURL, Refresh: j.Refresh}
			if j.CA != "" {
				if s.CA = certificates[j.CA].CA; s.CA == "" {
					k.lost(j.JWKSURL, "no "+certificate.CAFile+" in the folder of certificate "+j.CA)
					continue
				}
			}
			want = append(want, s)
		}
	}
	if slices.Equal(want, k.aimed) {
		return nil, false
	}
	k.aimed = want
	k.forget(named)
	return want, true
}

func (k *keys) forget(named map[string]bool) {
	gone := func(url string) bool { return !named[url] }
	for url := range k.errs {
		if gone(url) {
			delete(k.errs, url)
			delete(k.loaded, url)
			k.metrics.sourceError.DeleteLabelValues(url)
		}
	}
	good := maps.Clone(k.good)
	maps.DeleteFunc(good, func(url, _ string) bool { return gone(url) })
	if len(good) != len(k.good) {
		k.keep(good)
	}
}

// read says whether an answer changes what edges should have.
func (k *keys) read(u source.KeyUpdate, now time.Time) bool {
	if !slices.ContainsFunc(k.aimed, func(s source.KeySet) bool { return s.URL == u.URL }) {
		return false // asked for before
	}
	if u.Err != nil {
		k.lost(u.URL, u.Err.Error())
		return false
	}
	if k.errs[u.URL] != "" {
		k.log.Info("identity provider shows its keys again", "url", u.URL)
	}
	k.errs[u.URL], k.loaded[u.URL] = "", now
	k.metrics.sourceError.WithLabelValues(u.URL).Set(0)
	if k.good[u.URL] == u.Keys {
		return false
	}
	good := maps.Clone(k.good)
	good[u.URL] = u.Keys
	k.keep(good)
	k.log.Info("keys of an identity provider read", "url", u.URL)
	return true
}

func (k *keys) lost(url, why string) {
	if k.errs[url] == "" {
		_, had := k.good[url]
		k.log.Warn("identity provider does not show its keys", "url", url, "error", why, "the last ones go on", had)
	}
	k.errs[url] = why
	k.metrics.sourceError.WithLabelValues(url).Set(1)
}

// keep makes keys durable. They count as well where that fails.
func (k *keys) keep(good map[string]string) {
	k.good = good
	if err := durable.SaveSigned(k.path, k.signing, good); err != nil {
		k.metrics.durable.WithLabelValues(keysFile).Inc()
		k.log.Error("keys of identity providers cannot be kept", "error", err)
	}
}

// with is the edge with the keys.
func (k *keys) with(e plan.Edge) plan.Edge {
	e.Keys = k.good
	return e
}

// show adds the providers of the policy to the sources of a status.
func (k *keys) show(providers []policy.JWTProvider, sources map[string]ctlapi.Source) {
	for _, j := range providers {
		if j.JWKSURL == "" {
			continue
		}
		s := ctlapi.Source{File: j.JWKSURL, Error: k.errs[j.JWKSURL], Loaded: k.loaded[j.JWKSURL]}
		if _, ok := k.good[j.JWKSURL]; !ok && s.Error == "" {
			s.Error = "not asked yet"
		}
		sources["jwt "+j.Name] = s
	}
}

// edge is what edges are besides the policy.
func (l *loop) edge() plan.Edge { return l.keys.with(l.certs.with(l.cfg.Edge)) }

// aimKeys tells who asks for keys which ones, when that has changed: those of what is
// wanted, of what is in force, and of what is tried.
func (l *loop) aimKeys(want chan []source.KeySet) {
	if l.wanted.policy == nil {
		return // not read yet; what was kept is kept
	}
	policies := []*policy.Policy{l.wanted.policy, l.effective().policy}
	if l.good != nil {
		policies = append(policies, l.good.wish.policy)
	}
	if l.trial != nil {
		policies = append(policies, l.trial.wish.policy)
	}
	sets, changed := l.keys.aim(l.certs.good, policies...)
	if !changed {
		return
	}
	select {
	case <-want: // not taken yet, and out of date; nobody else sends
	default:
	}
	want <- sets
}
