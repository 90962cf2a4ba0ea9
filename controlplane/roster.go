package controlplane

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/mesh/settings"
)

// roster is who asks for settings at the moment and what they answered. Handlers of the
// API write it, the loop reads it when told that it has changed. It is safe for concurrent
// use.
type roster struct {
	now     func() time.Time
	changed chan struct{} // has room for one

	mu        sync.Mutex
	instances map[instanceID]*seat
}

type instanceID struct{ service, node string }

// seat is an instance; one that has come again may be there twice for a moment.
type seat struct {
	shown       ctlapi.SettingsInstance
	connections int
}

func newRoster(now func() time.Time) *roster {
	return &roster{now: now, changed: make(chan struct{}, 1), instances: map[instanceID]*seat{}}
}

// Connected is [ctl.Settings]'s.
func (r *roster) Connected(of settings.Instance) (leave func()) {
	id := instanceID{of.Service, of.Node}
	defer r.tell()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.instances[id]
	if s == nil {
		s = &seat{}
		r.instances[id] = s
	}
	s.connections++
	s.shown = ctlapi.SettingsInstance{Instance: of, Since: r.now()}
	return sync.OnceFunc(func() {
		defer r.tell()
		r.mu.Lock()
		defer r.mu.Unlock()
		if s.connections--; s.connections == 0 {
			delete(r.instances, id)
		}
	})
}

// Report is [ctl.Settings]'s.
func (r *roster) Report(in ctlapi.SettingsReport) {
	defer r.tell()
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.instances[instanceID{in.Of.Service, in.Of.Node}]; s != nil {
		d := in.Document
		s.shown.Answered, s.shown.Key, s.shown.Revision, s.shown.Digest, s.shown.Refused = true, d.Key, d.Revision, d.Digest, in.Refused
	}
}

func (r *roster) tell() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *roster) list() []ctlapi.SettingsInstance {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]ctlapi.SettingsInstance, 0, len(r.instances))
	for _, s := range r.instances {
		out = append(out, s.shown)
	}
	slices.SortFunc(out, func(a, b ctlapi.SettingsInstance) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Node, b.Node))
	})
	return out
}
