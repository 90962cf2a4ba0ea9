package controlplane

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/history"
	"github.com/tracegate/tracegate/controlplane/source"
	"github.com/tracegate/tracegate/mesh/settings"
	"github.com/tracegate/tracegate/mesh/strict"
	"github.com/tracegate/tracegate/observability/sli"
)

// Settings of services (mesh/settings). Each key has what a policy has: what is wanted,
// what was good, what was refused or taken back, and a history. What differs is who
// acknowledges: not edges, but the instances that the document is for. One that refuses
// has all go back to the last good one, as an edge does.

// services are all settings documents. The loop owns it.
type services struct {
	histories *histories
	check     map[string]func([]byte) error // by service
	place     string                        // where documents come from: "file" or "etcd"
	metrics   *metrics
	log       *slog.Logger

	keys      map[string]*tracked
	read      bool // a source was read
	instances []ctlapi.SettingsInstance
}

// tracked is one key. A document of no bytes is none: that, too, may be wanted or good.
type tracked struct {
	key     string
	history *history.Log
	seen    []byte // as it was found last; nil: nothing was
	wanted  []byte // the newest that is valid; nil: nothing was read yet
	good    []byte // the last that was in force
	bad     []byte // that an instance refused; nil: none
	handed  []byte // to instances; nil: nothing was
	updated *settingsUpdate
	undone  *settingsUndone
}

// settingsUpdate is the last change of what instances get.
type settingsUpdate struct {
	raw, before []byte
	change      decide.Change
}

// settingsUndone is a document that was taken back.
type settingsUndone struct {
	raw, to []byte
	why     ctlapi.RolledBack
}

func newServices(h *histories, check map[string]func([]byte) error, place string, m *metrics, log *slog.Logger) *services {
	s := &services{histories: h, check: check, place: place, metrics: m, log: log, keys: map[string]*tracked{}}
	for _, key := range h.keys() {
		t, err := s.of(key)
		if err != nil {
			continue // open already
		}
		for _, r := range t.history.List() {
			if r.State == ctlapi.RevisionInForce {
				t.good, err = t.history.Document(r.Number)
				s.remember(key, err)
				break
			}
		}
		t.handed = t.good // until a source says otherwise; the service began with none
		s.read = s.read || t.good != nil
	}
	return s
}

func (s *services) of(key string) (*tracked, error) {
	if t := s.keys[key]; t != nil {
		return t, nil
	}
	h, err := s.histories.of(key)
	if err != nil {
		return nil, err
	}
	t := &tracked{key: key, history: h}
	s.keys[key] = t
	return t, nil
}

func (s *services) remember(key string, err error) {
	if err != nil {
		s.metrics.durable.WithLabelValues("settings").Inc()
		s.log.Error("history of settings", "key", key, "error", err)
	}
}

// readAll takes what a source has. long is what groups got lately.
func (s *services) readAll(ds source.Documents, long []sli.Stats, now time.Time) {
	s.read = true
	for key, d := range ds {
		t, err := s.of(key)
		if err != nil {
			s.remember(key, err)
			continue
		}
		s.readOne(t, d, long, now)
	}
	for key, t := range s.keys {
		if _, there := ds[key]; !there && (t.seen == nil && len(t.good) > 0 || len(t.seen) > 0) {
			s.readOne(t, source.Document{Raw: []byte{}, From: s.place + ":removed"}, long, now)
		}
	}
}

func (s *services) readOne(t *tracked, d source.Document, long []sli.Stats, now time.Time) {
	if d.Err != nil {
		s.log.Warn("settings cannot be read, those before go on", "key", t.key, "error", d.Err)
		return
	}
	if t.seen != nil && bytes.Equal(t.seen, d.Raw) {
		return
	}
	t.seen = bytes.Clone(d.Raw)
	if t.seen == nil {
		t.seen = []byte{}
	}
	if d.From != "" {
		t.history.Suggest(t.seen, d.From, d.Reason)
	}
	if err := s.valid(t.key, t.seen); err != nil {
		s.metrics.settings.WithLabelValues("invalid").Inc()
		s.log.Warn("settings cannot be used, those before go on", "key", t.key, "from", d.From, "error", err)
		s.remember(t.key, t.history.Invalid(t.seen, now, err.Error()))
		return
	}
	s.want(t, t.seen, long, now)
}

// want makes a valid document the one that instances shall have.
func (s *services) want(t *tracked, raw []byte, long []sli.Stats, now time.Time) {
	t.wanted, t.bad = raw, nil
	if !t.again(raw, s) {
		t.undone = nil
		s.remember(t.key, t.history.Add(raw, now))
	}
	s.hand(t, long, now)
}

// valid checks a document; none is valid.
func (s *services) valid(key string, raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	service, _ := settings.ServiceOf(key)
	if check := s.check[service]; check != nil {
		return check(raw)
	}
	return strict.Check(raw)
}

// again says whether a document is one that was taken back and stays so.
func (t *tracked) again(raw []byte, s *services) bool {
	if t.undone != nil && bytes.Equal(t.undone.raw, raw) {
		return true
	}
	r, ok := t.history.WasRolledBack(raw)
	if !ok {
		return false
	}
	var to []byte
	if r.BackTo > 0 {
		var err error
		if to, err = t.history.Document(r.BackTo); err != nil {
			s.log.Error("settings that were taken back are in force again, those before are not kept", "key", t.key, "revision", r.Number, "error", err)
			return false
		}
	}
	t.undone = &settingsUndone{raw: raw, to: to, why: ctlapi.RolledBack{From: r.Number, To: r.BackTo, Time: r.Since, Why: r.Why}}
	return true
}

// effective is what instances shall have.
func (t *tracked) effective() []byte {
	switch {
	case t.undone != nil && bytes.Equal(t.undone.raw, t.wanted):
		return t.undone.to
	case t.wanted == nil || t.bad != nil && bytes.Equal(t.bad, t.wanted):
		return t.good
	}
	return t.wanted
}

// hand gives instances what they shall have, and remembers it as an update where it is one.
func (s *services) hand(t *tracked, long []sli.Stats, now time.Time) {
	next := t.effective()
	if next == nil {
		next = []byte{}
	}
	if t.handed != nil && bytes.Equal(t.handed, next) {
		if bytes.Equal(t.good, next) && t.undone == nil { // it is wanted once more
			s.remember(t.key, t.history.InForce(next, now, ""))
		}
		return
	}
	first := t.handed == nil && len(next) == 0
	t.handed = next
	if first || bytes.Equal(next, t.good) || t.undone != nil {
		t.updated = nil // back to what was good is no update
	} else {
		service, _ := settings.ServiceOf(t.key)
		t.updated = &settingsUpdate{raw: next, before: t.good, change: decide.Change{
			Revision: decide.RevisionChange{Settings: t.key, From: t.number(t.good), To: t.number(next)},
			At:       now, Services: map[string]bool{service: true}, Before: long,
		}}
	}
	s.log.Info("settings are handed out", "key", t.key, "revision", t.number(next))
	s.settle(t, long, now)
}

// number is the revision of a document; 0: none.
func (t *tracked) number(raw []byte) int {
	if len(raw) == 0 {
		return 0
	}
	return t.history.Number(raw)
}

// answered looks at what instances said.
func (s *services) answered(instances []ctlapi.SettingsInstance, long []sli.Stats, now time.Time) {
	s.instances = instances
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		s.settle(s.keys[key], long, now)
	}
}

// settle says what became of the document that instances of a key were handed.
func (s *services) settle(t *tracked, long []sli.Stats, now time.Time) {
	if t.handed == nil || bytes.Equal(t.handed, t.good) && t.undone == nil {
		return
	}
	digest, waiting, having := ctlapi.DigestOf(t.handed), 0, 0
	for _, i := range s.instances {
		switch {
		case !slices.Contains(i.Keys(), t.key):
		case len(t.handed) == 0:
			having++ // there is nothing to have
		case s.documentFor(i).Key != t.key:
		case i.Digest != digest || i.Key != t.key:
			waiting++
		case i.Refused != "":
			if !bytes.Equal(t.handed, t.good) {
				s.refuse(t, i, long, now)
				return
			}
		default:
			having++
		}
	}
	if waiting > 0 || having == 0 && len(t.handed) > 0 {
		return
	}
	if !bytes.Equal(t.good, t.handed) {
		s.metrics.settings.WithLabelValues("in_force").Inc()
	}
	t.good = t.handed
	s.remember(t.key, t.history.InForce(t.handed, now, ""))
}

// refuse goes back to the last good one.
func (s *services) refuse(t *tracked, by ctlapi.SettingsInstance, long []sli.Stats, now time.Time) {
	why := fmt.Sprintf("instance %s: %s", by.Node, by.Refused)
	s.metrics.settings.WithLabelValues("refused").Inc()
	s.log.Error("an instance refused settings, back to the last good ones", "key", t.key, "revision", t.number(t.handed), "instance", by.Node, "reason", by.Refused)
	s.remember(t.key, t.history.Refused(t.handed, why))
	t.bad = t.handed
	s.hand(t, long, now)
}

// documents are what instances get, by key; nil: nothing is known yet.
func (s *services) documents() map[string]settings.Document {
	if !s.read {
		return nil
	}
	out := make(map[string]settings.Document, len(s.keys))
	for key, t := range s.keys {
		if len(t.handed) > 0 {
			out[key] = settings.Document{Key: key, Revision: t.number(t.handed), Digest: ctlapi.DigestOf(t.handed), Text: string(t.handed)}
		}
	}
	return out
}

// documentFor is what an instance gets.
func (s *services) documentFor(i ctlapi.SettingsInstance) settings.Document {
	for _, key := range i.Keys() {
		if t := s.keys[key]; t != nil && len(t.handed) > 0 {
			return settings.Document{Key: key}
		}
	}
	return settings.Document{}
}

// updates are the last of each key.
func (s *services) updates() []*decide.Change {
	var out []*decide.Change
	for _, t := range s.keys {
		if t.updated != nil {
			out = append(out, &t.updated.change)
		}
	}
	return out
}

// current says whether a revision is what a key's instances were last given.
func (s *services) current(r decide.RevisionChange) bool {
	t := s.keys[r.Settings]
	return t != nil && t.updated != nil && t.updated.change.Revision.To == r.From
}

// takeBack hands out the document before.
func (s *services) takeBack(d decide.Decision, long []sli.Stats, now time.Time) {
	if !s.current(*d.Revision) {
		return // another document came meanwhile
	}
	t := s.keys[d.Revision.Settings]
	t.undone = &settingsUndone{raw: t.updated.raw, to: t.updated.before, why: ctlapi.RolledBack{From: d.Revision.From, To: d.Revision.To, Time: d.Time, Why: d.Reason}}
	s.metrics.settings.WithLabelValues("rolled_back").Inc()
	s.log.Error("an update of settings is taken back", "key", t.key, "revision", d.Revision.From, "in force", d.Revision.To, "reason", d.Reason)
	s.remember(t.key, t.history.RolledBack(t.undone.raw, d.Revision.To, d.Reason))
	s.hand(t, long, now)
}

// reapply is an operator's word that a document is wanted although it was refused or taken
// back: the source will not say it again.
func (s *services) reapply(key string, raw []byte, long []sli.Stats, now time.Time) {
	t := s.keys[key]
	if t == nil || !bytes.Equal(t.seen, raw) || (t.undone == nil || !bytes.Equal(t.undone.raw, raw)) && !bytes.Equal(t.bad, raw) {
		return
	}
	t.undone = nil
	s.want(t, t.seen, long, now)
}

// show is what people see.
func (s *services) show() ctlapi.Settings {
	out := ctlapi.Settings{Instances: s.instances}
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		t := s.keys[key]
		all := t.history.List()
		if len(all) == 0 {
			continue
		}
		d := ctlapi.SettingsDocument{Key: key, Newest: all[0], Handed: t.number(t.handed)}
		if t.undone != nil {
			d.RolledBack = &t.undone.why
		}
		out.Documents = append(out.Documents, d)
	}
	return out
}
