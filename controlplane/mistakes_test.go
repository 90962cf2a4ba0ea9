package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/xds"
	"github.com/tracegate/tracegate/edge/bootstrap"
	"github.com/tracegate/tracegate/edge/envoytest"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/observability/semconv"
)

// mistake is one kind of them. What is wrong stands in the line with "# here".
type mistake struct {
	name      string
	rule      string // one more rule of the policy
	service   string // one more service, or what comes behind the first
	whole     string // the whole policy, instead
	endpoints string // the whole endpoints document; the policy is good then
	line      int    // where "# here" cannot stand
	key       string // of the problem
}

var mistakes = []mistake{
	{name: "unknown key", rule: "{name: bad, match: [{path: /bad}], timeot: 3s} # here", key: "timeot"},
	{name: "unknown inner key", rule: "{name: bad, match: [{pth: /bad}]} # here", key: "match[0].pth"},
	{name: "a number for a text", rule: "{name: bad, match: {path: /bad}} # here", key: "match"},
	{name: "a duration without unit", rule: "{name: bad, match: [{path: /bad}], timeout: soon} # here", key: "timeout"},
	{name: "a negative number", rule: "{name: bad, match: [{path: /bad}], maxRequestBytes: -1} # here", key: "maxRequestBytes"},
	{name: "no name", rule: "{match: [{path: /bad}]} # here", key: "name"},
	{name: "no match", rule: "{name: bad, match: []} # here", key: "match"},
	{name: "a name twice", rule: "{name: mark, match: [{path: /bad}]} # here", key: "name"},
	{name: "a pool that is not there", rule: "{name: bad, match: [{path: /bad}], pool: gold} # here", key: "pool"},
	{name: "a service that is not there", rule: "{name: bad, match: [{path: /bad}], service: gone} # here", key: "service"},
	{name: "a regular expression that is none", rule: "{name: bad, match: [{regex: '/(bad'}]} # here", key: "regex"},
	{name: "a regular expression that costs too much", rule: "{name: bad, match: [{regex: '/[a-z]{500}'}]} # here", key: "regex"},
	{name: "a path without slash", rule: "{name: bad, match: [{path: bad}]} # here", key: "path"},
	{name: "a host with port", rule: "{name: bad, match: [{hosts: ['bad.test:80']}]} # here", key: "hosts[0]"},
	{name: "a method in small letters", rule: "{name: bad, match: [{methods: [get]}]} # here", key: "methods[0]"},
	{name: "a rule that is never reached", rule: "{name: bad, match: [{hosts: [mark.test], path: /mark}]} # here", key: "match[0]"},
	{name: "a canary of more than all", rule: "{name: bad, match: [{path: /bad}], canary: {cookie: u, pools: [{pool: canary, percent: 101}]}} # here", key: "percent"},
	{name: "a timeout beyond bounds", rule: "{name: bad, match: [{path: /bad}], timeout: 9h} # here", key: "timeout"},
	{name: "retries on nothing known", rule: "{name: bad, match: [{path: /bad}], retries: {attempts: 1, on: [always]}} # here", key: "on[0]"},
	{name: "a status that is none", rule: "{name: bad, match: [{path: /bad}], directResponse: {status: 99}} # here", key: "status"},
	{name: "two answers", rule: "{name: bad, match: [{path: /bad}], directResponse: {status: 200}, redirect: {https: true}} # here", key: "rules[1]"},
	{name: "a header of the edge", rule: "{name: bad, match: [{path: /bad}], requestHeaders: {set: {traceparent: x}}} # here", key: "traceparent"},
	{name: "a rewrite of nothing", rule: "{name: bad, match: [{hosts: [bad.test]}], rewrite: {path: /x}} # here", key: "rewrite.path"},
	{name: "a service twice", service: "  - {name: core, pools: [{name: baseline}], routes: [{path: /bad}]} # here\n", key: "services[1].name"},
	{name: "a service without baseline", service: "  - {name: bad, pools: [{name: gold}], routes: [{path: /bad}]} # here\n", key: "pools"},
	{name: "a key twice", service: "failure: open\nfailure: closed # here\n", key: "failure"},
	{name: "a choice that is none", service: "failure: maybe # here\n", key: "failure"},
	{name: "a cohort that is not there", service: "cohortPools:\n  gone: canary # here\n", key: "cohortPools.gone"},
	{name: "decisions beyond bounds", service: "decide:\n  maxErrorRatio: 7 # here\n", key: "decide.maxErrorRatio"},
	{name: "no YAML", whole: "services:\n  - name: core\n   pools: [", line: 2},
	{name: "a list for keys", whole: "- services # here\n"},
	{name: "an empty file", whole: "\n", line: 1},
	{name: "a file that is cut off", whole: "services:\n  - name: core\n    pools: [{name: base", line: 3},
	{name: "no service", whole: "failure: open\nservices: [] # here\n", key: "services"},
	{name: "an address that is none", endpoints: "services:\n  core:\n    baseline: ['nowhere:1'] # here\n", key: "services.core.baseline[0]"},
	{name: "an address twice", endpoints: "services:\n  core:\n    baseline: ['127.0.0.1:1', '127.0.0.1:1'] # here\n", key: "services.core.baseline[1]"},
	{name: "no endpoint at all", endpoints: "services: {} # here\n", key: "services"},
	{name: "endpoints of another form", endpoints: "services: # here\n  - core\n", line: 2, key: "services"},
	{name: "what only the edge refuses", rule: "{name: bad, match: [{hosts: [bad.test], regex: '/bad#[a-z]{70}'}]} # here", key: "services[0].rules[1]"},
	{name: "what only the edge refuses, of no host", rule: "{name: bad, match: [{regex: '/bad#[a-z]{70}'}]} # here", key: "services[0].rules[1]"},
}

// document is a policy with a mark that tells its version apart at the edge, and at
// most one mistake.
func (m mistake) document(version int) string {
	if m.whole != "" {
		return m.whole
	}
	rule := ""
	if m.rule != "" {
		rule = "      - " + strings.ReplaceAll(m.rule, "#[", fmt.Sprintf("%d[", version)) + "\n"
	}
	return fmt.Sprintf(`services:
  - name: core
    pools: [{name: baseline}, {name: canary}, {name: isolated}]
    rules:
      - {name: mark, match: [{hosts: [mark.test], path: /mark}], directResponse: {status: 200, body: "%d"}}
%s      - {name: r%d, match: [{path: /r%d}], timeout: 3s}
    routes: [{prefix: /}]
%s`, version, rule, version, version, m.service)
}

// onlyEdge is what this side cannot know: the rest of the policy goes out.
func (m mistake) onlyEdge() bool { return strings.HasPrefix(m.name, "what only the edge") }

func (m mistake) want(doc string) (line int) {
	if m.line > 0 {
		return m.line
	}
	return 1 + strings.Count(doc[:strings.Index(doc, "# here")], "\n")
}

// strictly makes an edge take smaller regular expressions only than this side knows.
func strictly(js []byte) []byte {
	return bytes.Replace(js, []byte(`"re2.max_program_size.error_level": 200`), []byte(`"re2.max_program_size.error_level": 60`), 1)
}

// marked asks the edge for the version that it has.
func marked(client *http.Client, edge string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+edge+"/mark", nil)
	if err != nil {
		return "", err
	}
	req.Host = "mark.test"
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// TestMistakes brings 100 bad changes of each kind there is between good ones, to a real
// Envoy, with a restart of both in the middle: each good one is applied, each bad one
// is shown with file and line, and the edge is never without configuration.
func TestMistakes(t *testing.T) {
	envoytest.Binary(t)
	cfg := testConfig(t)
	cfg.AckTimeout = 5 * time.Second
	cfg.Edge.Listen = freeport.ForTest(t)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set(semconv.HeaderPool, "baseline") }))
	t.Cleanup(up.Close)
	addr := strings.TrimPrefix(up.URL, "http://")
	good := fmt.Sprintf("services: {core: {baseline: ['%s'], canary: ['%s'], isolated: ['%s']}}\n", addr, addr, addr)
	write(t, cfg.Endpoints, good)
	write(t, cfg.Policy, mistake{}.document(0))
	world := newWorld()
	p := run(t, cfg, world)
	boot := bootstrap.DefaultConfig()
	boot.XDS = p.xds
	envoy := envoytest.StartEdited(t, boot, strictly)
	envoy.WaitReady(t)
	client := up.Client()
	serves := func(version int) {
		t.Helper()
		eventually(t, fmt.Sprintf("version %d at the edge", version), func() bool {
			got, err := marked(client, cfg.Edge.Listen)
			return err == nil && got == fmt.Sprint(version)
		}, func() any {
			s, _ := p.api.Status(t.Context())
			return s
		})
	}
	serves(0)

	probes := probe(t, client, cfg.Edge.Listen)
	const changes = 100
	seen := map[string]bool{}
	for i := range changes {
		m := mistakes[i%len(mistakes)]
		seen[m.name] = true
		version := 2*i + 1
		file, doc := cfg.Policy, m.document(version)
		if m.endpoints != "" {
			file, doc = cfg.Endpoints, m.endpoints
		}
		write(t, file, doc)
		p.reported(m, file, m.want(doc))
		if m.onlyEdge() {
			serves(version) // the rest of it
		}
		if i == changes/2 { // with the mistake in place, and one that this side finds
			probes.pause(func() {
				p.stop()
				envoy.Kill()
				l, err := net.Listen("tcp", boot.XDS)
				if err != nil {
					t.Fatal(err)
				}
				p = runOn(t, cfg, world, l)
				envoy = envoytest.StartEdited(t, boot, strictly)
				envoy.WaitReady(t)
				serves(version - 1)
			})
		}
		if m.endpoints != "" {
			write(t, cfg.Endpoints, good)
		}
		write(t, cfg.Policy, mistake{}.document(version+1))
		serves(version + 1)
	}
	p.status("nothing is left of it", func(s ctlapi.Status) bool {
		return acked(s) && len(s.Quarantined) == 0 && s.Sources["policy"].Error == ""
	})
	asked, failed := probes.end()
	if failed != nil || asked < 100 {
		t.Errorf("%d requests, %v", asked, failed)
	}
	t.Logf("%d bad changes of %d kinds, %d good ones, %d requests, all served", changes, len(seen), changes+1, asked)
}

// TestMistakeInTheFirstPolicy: there is nothing to go back to, and the edge still gets
// all the rest, also from a control plane that was started again.
func TestMistakeInTheFirstPolicy(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	refuse := func(typ xds.Type, r *discoveryv3.DeltaDiscoveryResponse) string {
		for _, res := range r.GetResources() {
			if typ == xds.Routes && strings.Contains(string(res.GetResource().GetValue()), "/poison") {
				return "path '/poison' is not to be had"
			}
		}
		return ""
	}
	bad := mistake{rule: "{name: bad, match: [{path: /poison}]} # here"}
	write(t, cfg.Policy, bad.document(1))
	partly := func(s ctlapi.Status) bool {
		return acked(s) && len(s.Quarantined) == 1 && len(s.Quarantined[0].Places) == 1 && s.Quarantined[0].Places[0].Line == 6
	}
	for range 2 {
		p := run(t, cfg, newWorld())
		edge := servertest.Connect(t, p.xds, servertest.Options{Answer: refuse})
		p.status("all but the rule", partly)
		if edge.Has()[xds.Routes]["edge"] == "" {
			t.Error("the edge has no routes")
		}
		p.newest("partly", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionPartly })
		p.stop()
	}
	p := run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{Answer: refuse})
	write(t, cfg.Policy, strings.Replace(bad.document(1), "/poison", "/cure", 1))
	p.status("cured", func(s ctlapi.Status) bool { return acked(s) && len(s.Quarantined) == 0 })
	p.newest("in force", func(r ctlapi.Revision) bool { return r.State == ctlapi.RevisionInForce })
}

// reported waits until a mistake is shown with its file and line, in status and,
// where it is the policy's, in the history.
func (p *plane) reported(m mistake, file string, line int) {
	p.t.Helper()
	what := fmt.Sprintf("%s, as %s:%d %s", m.name, file, line, m.key)
	p.status(what, func(s ctlapi.Status) bool {
		if m.onlyEdge() {
			for _, q := range s.Quarantined {
				for _, at := range q.Places {
					if at.File == file && at.Line == line && at.Path == m.key {
						return true
					}
				}
			}
			return false
		}
		for _, src := range s.Sources {
			for _, problem := range src.Problems {
				if src.File == file && max(1, problem.Line) == line && strings.HasSuffix(problem.Path, m.key) {
					return true
				}
			}
		}
		return false
	})
	if file != p.cfg.Policy {
		return
	}
	p.newest(what+", in the history", func(r ctlapi.Revision) bool {
		state := ctlapi.RevisionInvalid
		if m.onlyEdge() {
			state = ctlapi.RevisionPartly
		}
		return r.State == state && strings.Contains(r.Why, fmt.Sprintf("%s:%d: ", file, line))
	})
}

// prober asks an edge all the time.
type prober struct {
	mu     sync.Mutex // held while it may ask
	asked  atomic.Int64
	failed atomic.Pointer[error]
	stop   context.CancelFunc
	done   chan struct{}
}

func probe(t *testing.T, client *http.Client, edge string) *prober {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &prober{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			p.mu.Lock()
			_, err := marked(client, edge)
			p.mu.Unlock()
			p.asked.Add(1)
			if err != nil {
				p.failed.CompareAndSwap(nil, &err)
			}
			<-tick.C
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-p.done
	})
	return p
}

// pause is for what the edge does not survive.
func (p *prober) pause(do func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	do()
}

func (p *prober) end() (asked int64, failed error) {
	p.stop()
	<-p.done
	if err := p.failed.Load(); err != nil {
		failed = *err
	}
	return p.asked.Load(), failed
}

// TestLastGoodIsSigned: a file that was edited is refused and said, everything else
// works; one that was not serves edges without any source.
func TestLastGoodIsSigned(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	p := run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{})
	p.status("programmed", acked)
	p.stop()
	file := cfg.Dir + "/lastgood/edge.json"
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	// No source is to be had: the last good one serves.
	for _, f := range []string{cfg.Policy, cfg.Endpoints} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	p = run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{})
	s := p.status("served from disk", func(s ctlapi.Status) bool { return len(s.Edges) == 1 && s.Edges[0].InSync && s.LastGood != "" })
	if s.LastGoodProblem != "" || s.Sources["policy"].Error == "" {
		t.Errorf("status: %+v", s)
	}
	p.stop()

	// Edited: not used, said, and no obstacle for what comes next.
	write(t, file, strings.Replace(string(whole), `"placement":{`, `"placement": {`, 1))
	p = run(t, cfg, newWorld())
	s = p.status("refused", func(s ctlapi.Status) bool { return s.LastGoodProblem != "" })
	if !strings.Contains(s.LastGoodProblem, "signature does not match") || s.LastGood != "" {
		t.Errorf("status: %+v", s)
	}
	write(t, cfg.Policy, string(policy.Default))
	write(t, cfg.Endpoints, endpoints)
	servertest.Connect(t, p.xds, servertest.Options{})
	p.status("from the sources", func(s ctlapi.Status) bool { return acked(s) && s.LastGoodProblem == "" })
}
