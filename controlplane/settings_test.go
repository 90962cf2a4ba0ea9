package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/notify"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/source/etcdtest"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/settings"
	"github.com/tracegate/tracegate/mesh/webhook"
	"github.com/tracegate/tracegate/observability/semconv"
)

// service is an instance of a service that uses the library. It refuses a size of 13.
type service struct {
	t  *testing.T
	of settings.Instance

	mu      sync.Mutex
	inForce []string // the documents that were, oldest first
}

type knobs struct {
	Size int `yaml:"size"`
}

func check(k knobs, invalid func(path, format string, args ...any)) {
	if k.Size < 0 {
		invalid("size", "must not be negative")
	}
}

// checkKnobs is what the control plane knows of the service.
func checkKnobs(document []byte) error {
	l := settings.Live[knobs]{Check: check}
	_, err := l.Parse(string(document))
	return err
}

func (p *plane) service(of settings.Instance) *service {
	s := &service{t: p.t, of: of}
	ctx, cancel := context.WithCancel(p.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		var size int
		live := settings.Live[knobs]{
			Own: knobs{Size: 1}, Apply: func(k knobs) { size = k.Size }, Log: slog.New(slog.DiscardHandler),
			Check: func(k knobs, invalid func(path, format string, args ...any)) {
				if check(k, invalid); k.Size == 13 {
					invalid("size", "13 brings bad luck here")
				}
			},
			Taken: func(d settings.Document, err error) {
				s.mu.Lock()
				defer s.mu.Unlock()
				if err == nil {
					s.inForce = append(s.inForce, fmt.Sprintf("%s %d: %d", d.Key, d.Revision, size))
				}
			},
		}
		if err := live.Run(ctx, p.api, of); ctx.Err() == nil {
			p.t.Errorf("instance %s: %v", of.Node, err)
		}
	}()
	p.t.Cleanup(func() { cancel(); <-done })
	return s
}

// has waits until the newest document in force is the one.
func (s *service) has(want string) {
	s.t.Helper()
	eventually(s.t, s.of.Node+" has "+want, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.inForce) > 0 && s.inForce[len(s.inForce)-1] == want
	}, func() any {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Clone(s.inForce)
	})
}

// settled waits for what becomes of the newest revision of a key.
func (p *plane) settled(key, state string, number int) ctlapi.Revision {
	p.t.Helper()
	var all []ctlapi.Revision
	var err error
	eventually(p.t, fmt.Sprintf("%s revision %d is %s", key, number, state), func() bool {
		all, err = p.api.SettingsRevisions(p.t.Context(), key)
		return err == nil && len(all) > 0 && all[0].Number == number && all[0].State == state
	}, func() any { return fmt.Sprint(all, err) })
	return all[0]
}

func refusedFor(t *testing.T, err error, field string) {
	t.Helper()
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Field != field {
		t.Errorf("refused for %v, want field %q", err, field)
	}
}

// TestSettings goes the way of settings documents: everyone, by label, by version, in
// files; bad ones, one that an instance refuses, removal, a restart of the control plane.
func TestSettings(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := run(t, cfg, newWorld())
	all := p.service(settings.Instance{Service: "core", Node: "a"})
	gray := p.service(settings.Instance{Service: "core", Node: "b", Labels: []string{"env=staging", "pool=x"}})
	v2 := p.service(settings.Instance{Service: "core", Node: "c", Labels: []string{"env=staging"}, Version: "v2"})
	all.has(" 0: 1")
	put := func(key, text string) {
		t.Helper()
		if err := putFile(filepath.Join(cfg.Settings, filepath.FromSlash(key)+".yaml"), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	put("core", "# author: ann\n# reason: first\nsize: 2\n")
	if r := p.settled("core", ctlapi.RevisionInForce, 1); r.By != "file:ann" || r.Reason != "first" || r.Size == 0 || r.Digest == "" || r.Since.IsZero() {
		t.Errorf("revision: %+v", r)
	}
	for _, s := range []*service{all, gray, v2} {
		s.has("core 1: 2")
	}
	put("core/gray/env=staging", "size: 3\n")
	p.settled("core/gray/env=staging", ctlapi.RevisionInForce, 1)
	gray.has("core/gray/env=staging 1: 3")
	v2.has("core/gray/env=staging 1: 3")
	put("core/version/v2", "size: 4\n")
	p.settled("core/version/v2", ctlapi.RevisionInForce, 1)
	v2.has("core/version/v2 1: 4")
	all.has("core 1: 2")

	// What cannot be used names its key, and changes nothing.
	put("core", "siz: 5\n")
	if r := p.settled("core", ctlapi.RevisionInvalid, 2); !strings.Contains(r.Why, `siz: unknown key, did you mean "size"?`) {
		t.Errorf("why: %s", r.Why)
	}
	refusedFor(t, p.api.PutSettings(t.Context(), "core", []byte("size: -1\n"), "ann", ""), "size")
	refusedFor(t, p.api.PutSettings(t.Context(), "core", []byte("size: x\n"), "ann", ""), "size")
	refusedFor(t, p.api.PutSettings(t.Context(), "core/nobody", []byte("size: 1\n"), "ann", ""), "key")
	if err := p.api.PutSettings(t.Context(), "core", bytes.Repeat([]byte("#"), settings.MaxSize+1), "ann", ""); err == nil || !strings.Contains(err.Error(), "more than 65536 bytes") {
		t.Errorf("a large one: %v", err)
	}
	if err := p.api.PutSettings(t.Context(), "other", []byte("size: [\n"), "ann", ""); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("no YAML, of a service that nobody knows: %v", err)
	}
	// An instance refuses what the control plane takes: all are back.
	if err := p.api.PutSettings(t.Context(), "core/gray/env=staging", []byte("size: 13\n"), "ann", "luck"); err != nil {
		t.Fatal(err)
	}
	if r := p.settled("core/gray/env=staging", ctlapi.RevisionRefused, 2); r.By != "operator:ann" || r.Reason != "luck" || !strings.Contains(r.Why, "instance b: line 1: size: 13 brings bad luck here") {
		t.Errorf("refused: %+v", r)
	}
	gray.has("core/gray/env=staging 1: 3")
	show := func() ctlapi.Settings {
		s, err := p.api.Settings(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	eventually(t, "all are shown", func() bool {
		s := show()
		return len(s.Instances) == 3 && len(s.Documents) == 3 && s.Documents[1].Handed == 1 && s.Documents[1].Newest.Number == 2 &&
			s.Instances[1].Key == "core/gray/env=staging" && s.Instances[1].Revision == 1 && s.Instances[1].Refused == ""
	}, func() any { return show() })

	// A document that goes leaves the next wider one.
	if err := p.api.PutSettings(t.Context(), "core/version/v2", nil, "bob", "over"); err != nil {
		t.Fatal(err)
	}
	if r := p.settled("core/version/v2", ctlapi.RevisionInForce, 2); r.By != "operator:bob" || r.Size != 0 {
		t.Errorf("removed: %+v", r)
	}
	v2.has("core/gray/env=staging 1: 3")
	put("core/gray/env=staging", "")
	if r := p.settled("core/gray/env=staging", ctlapi.RevisionInForce, 3); r.By != "file:removed" {
		t.Errorf("removed: %+v", r)
	}
	v2.has("core 1: 2")
	gray.has("core 1: 2")
	p.stop()

	// The next run hands out what was good before it has read anything new, and the file that
	// cannot be used is still that.
	p = run(t, cfg, newWorld())
	again := p.service(settings.Instance{Service: "core", Node: "d"})
	again.has("core 1: 2")
	if err := p.api.PutSettings(t.Context(), "core", []byte("size: 6\n"), "ann", ""); err != nil {
		t.Fatal(err)
	}
	again.has("core 3: 6")
	p.settled("core", ctlapi.RevisionInForce, 3)
	if d, err := p.api.SettingsRevision(t.Context(), "core", 1); err != nil || !strings.HasSuffix(d.Document, "size: 2\n") {
		t.Errorf("revision 1: %+v, %v", d, err)
	}
}

// TestBadSettingsAreTakenBack has a group become bad right after settings of its service
// came into force: those before are handed out again, and people are told.
func TestBadSettingsAreTakenBack(t *testing.T) {
	t.Parallel()
	told := make(chan notify.Message, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var m notify.Message
		_ = json.NewDecoder(r.Body).Decode(&m)
		told <- m
	}))
	defer hook.Close()
	cfg, w := testConfig(t), newWorld()
	cfg.Notify = notify.Config{Hooks: []notify.Hook{{URL: hook.URL}}, Secret: secret.Text(webhook.NewSecret([32]byte{3})), Dir: cfg.Dir}
	write(t, cfg.Policy, calm(policy.Default))
	p := run(t, cfg, w)
	servertest.Connect(t, p.xds, servertest.Options{})
	s := p.service(settings.Instance{Service: "core", Node: "a", Labels: []string{"pool=canary"}})
	s.has(" 0: 1")
	p.newest("the policy", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce })
	eventually(t, "groups are measured", func() bool {
		gs, err := p.api.Groups(t.Context())
		return err == nil && len(gs) == 2
	}, func() any { return nil })

	const key = "core/gray/pool=canary"
	if err := p.api.PutSettings(t.Context(), key, []byte("size: 2\n"), "ann", "more"); err != nil {
		t.Fatal(err)
	}
	p.settled(key, ctlapi.RevisionInForce, 1)
	s.has(key + " 1: 2")
	w.set(func(w *world) { w.p95[semconv.PoolCanary] = 800 * time.Millisecond })
	r := p.settled(key, ctlapi.RevisionRolledBack, 1)
	w.set(func(w *world) { w.p95[semconv.PoolCanary] = 0 })
	if r.BackTo != 0 || !strings.Contains(r.Why, "settings "+key+" revision 1 came into force") {
		t.Errorf("history says %+v", r)
	}
	s.has(" 0: 1")
	var ds []decide.Decision
	eventually(t, "saved", func() bool { ds = w.decisions(decide.RollBack); return len(ds) == 1 }, func() any { return ds })
	if d := ds[0]; d.Group != sick.ID() || *d.Revision != (decide.RevisionChange{From: 1, Settings: key}) || d.Undo != "tracegate ctl settings rollback "+key+" 1" {
		t.Errorf("decision: %+v", d)
	}
	if moved := w.decisions(decide.Isolate); len(moved) > 0 {
		t.Errorf("groups were moved as well: %+v", moved)
	}
	if m := <-told; m.Type != "settings.rolled_back" || !strings.Contains(m.Data.Text, key+" revision 1") {
		t.Errorf("people are told %+v", m)
	}
	p.stop()

	p = run(t, cfg, w) // the file is there, and stays taken back
	s = p.service(settings.Instance{Service: "core", Node: "a", Labels: []string{"pool=canary"}})
	s.has(" 0: 1")
	if err := p.api.PutSettings(t.Context(), key, []byte("size: 2\n"), "ann", "it was not this"); err != nil {
		t.Fatal(err)
	}
	s.has(key + " 2: 2")
	if r := p.settled(key, ctlapi.RevisionInForce, 2); r.By != "operator:ann" {
		t.Errorf("brought once more: %+v", r)
	}
}

// TestSettingsFromEtcd: a real etcd has the documents; it is killed, restarted and
// compacted meanwhile, and instances go on.
func TestSettingsFromEtcd(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	client := server.Client()
	put := func(key, text string) int64 {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		r, err := client.Put(ctx, key, text)
		if err != nil {
			t.Fatal(err)
		}
		return r.Header.Revision
	}
	put("/config/app.yaml", string(renamed("policy")))
	put("/config/core.yaml", "# author: ann\nsize: 2\n")
	put("/config/core/gray/env=staging", "size: 3\n")
	put("/config/other", "no key of ours")
	cfg := testConfig(t)
	cfg.Etcd.Endpoints = []string{server.Endpoint}
	p := run(t, cfg, newWorld())
	all := p.service(settings.Instance{Service: "core", Node: "a"})
	gray := p.service(settings.Instance{Service: "core", Node: "b", Labels: []string{"env=staging"}})
	all.has("core 1: 2")
	gray.has("core/gray/env=staging 1: 3")
	if r := p.settled("core", ctlapi.RevisionInForce, 1); r.By != "etcd:ann" {
		t.Errorf("revision: %+v", r)
	}
	put("/config/core.yaml", "size: -2\n")
	if r := p.settled("core", ctlapi.RevisionInvalid, 2); r.By != "etcd:/config/core.yaml" {
		t.Errorf("a bad one: %+v", r)
	}

	server.Stop()
	late := p.service(settings.Instance{Service: "core", Node: "c"}) // while etcd is away
	late.has("core 1: 2")
	server.Start()
	var last int64
	for i := 4; i < 7; i++ {
		last = put("/config/core.yaml", fmt.Sprintf("size: %d\n", i))
	}
	if _, err := client.Compact(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	number := func() int {
		all, err := p.api.SettingsRevisions(t.Context(), "core")
		if err != nil {
			t.Fatal(err)
		}
		return all[0].Number
	}
	eventually(t, "the newest is in force", func() bool {
		all, err := p.api.SettingsRevisions(t.Context(), "core")
		return err == nil && all[0].State == ctlapi.RevisionInForce && all[0].Digest == ctlapi.DigestOf([]byte("size: 6\n"))
	}, func() any { return number() })
	six := fmt.Sprintf("core %d: 6", number())
	late.has(six)
	if err := p.api.PutSettings(t.Context(), "core/gray/env=staging", nil, "bob", ""); err != nil {
		t.Fatal(err)
	}
	gray.has(fmt.Sprintf("core %d: 6", number()))
	if got, err := client.Get(t.Context(), "/config/core/gray/env=staging"); err != nil || len(got.Kvs) != 0 {
		t.Errorf("etcd has %v, %v", got, err)
	}
	p.stop()

	server.Stop() // both gone: what was good is on disk
	p = run(t, cfg, newWorld())
	p.service(settings.Instance{Service: "core", Node: "d"}).has(six)
}

// TestSignedSettings: a signed message brings settings where its first lines say so, and
// only its own.
func TestSignedSettings(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.UpdateSecret = secret.Text(webhook.NewSecret([32]byte{7}))
	p := run(t, cfg, newWorld())
	s := p.service(settings.Instance{Service: "core", Node: "a"})
	document := "# settings: core\nsize: 5\n"
	send := func(key secret.Text, id, body string, at time.Time) (int, string) {
		t.Helper()
		k, err := webhook.Key(key)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.control+ctlapi.PathUpdates+"?by=git&reason=merged", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		webhook.SetHeaders(req.Header, k, id, at, []byte(body))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var out json.RawMessage
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(out)
	}
	now := time.Now()
	if code, body := send(cfg.UpdateSecret, "1", document, now); code != http.StatusOK || !strings.Contains(body, ctlapi.DigestOf([]byte(document))) {
		t.Errorf("answer %d: %s", code, body)
	}
	s.has("core 1: 5")
	if r := p.settled("core", ctlapi.RevisionInForce, 1); r.By != "webhook:git" || r.Reason != "merged" {
		t.Errorf("revision: %+v", r)
	}
	for name, c := range map[string]struct {
		key      secret.Text
		id, body string
		at       time.Time
		code     int
		want     string
	}{
		"replayed":     {cfg.UpdateSecret, "1", document, now, http.StatusConflict, "taken before"},
		"another key":  {secret.Text(webhook.NewSecret([32]byte{8})), "2", "# settings: core\nsize: 6\n", now, http.StatusUnauthorized, "signature"},
		"old":          {cfg.UpdateSecret, "3", "# settings: core\nsize: 6\n", now.Add(-time.Hour), http.StatusUnauthorized, "away from now"},
		"a bad one":    {cfg.UpdateSecret, "4", "# settings: core\nsizes: 6\n", now, http.StatusBadRequest, `line 2: sizes`},
		"of no key":    {cfg.UpdateSecret, "5", "# settings: ../core\nsize: 6\n", now, http.StatusBadRequest, "is no key"},
		"of no policy": {cfg.UpdateSecret, "6", "size: 6\n", now, http.StatusBadRequest, "size"},
	} {
		if code, body := send(c.key, c.id, c.body, c.at); code != c.code || !strings.Contains(strings.ToLower(body), strings.ToLower(strings.ReplaceAll(c.want, `"`, ``))) {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	if got := p.settled("core", ctlapi.RevisionInForce, 1); got.Number != 1 {
		t.Errorf("refused messages left %+v", got)
	}
}

// TestViewerMayNotAnswer: who may only look is handed settings, and cannot say that they
// are refused.
func TestViewerMayNotAnswer(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	cfg.ViewerToken = "a token of who may look"
	p := run(t, cfg, newWorld())
	viewer := ctlapi.NewClient(p.control, string(cfg.ViewerToken))
	err := viewer.WatchSettings(t.Context(), settings.Instance{Service: "core", Node: "x"}, func(settings.Document) error { return nil })
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodePermissionDenied {
		t.Errorf("it ended with %v", err)
	}
	err = p.api.WatchSettings(t.Context(), settings.Instance{Service: "core", Node: "a b"}, func(settings.Document) error { return nil })
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodeInvalidArgument {
		t.Errorf("a node of no name: %v", err)
	}
}
