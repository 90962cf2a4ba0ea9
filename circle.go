package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/edge/artifact"
	"github.com/tracegate/tracegate/edge/envoy"
	"github.com/tracegate/tracegate/mesh/local"
	"github.com/tracegate/tracegate/observability/semconv"
)

// The names of the parts, as status and logs show them.
const (
	partClickHouse   = "clickhouse"
	partObserve      = "observe"
	partControlPlane = "controlplane"
	partEdge         = "edge"
	partRateLimit    = "ratelimit"
	partProbe        = "probe"
	partSearch       = "search"
)

func corePart(pool string) string { return "core-" + pool }

// installed are the files that had to be fetched or built before the parts start.
// Parts find them again themselves, so that each can be run alone.
type installed struct {
	self   string // this binary
	client *http.Client
}

// install fetches and builds what the parts need, with progress, so that their own
// start is quick and a missing pip or network is told in one line.
func (u *up) install(ctx context.Context) (installed, error) {
	self, err := os.Executable()
	if err != nil {
		return installed{}, fmt.Errorf("find this binary: %w", err)
	}
	if _, err := envoy.Find(ctx, u.cfg.Edge.Envoy, "", u.log); err != nil {
		return installed{}, err
	}
	if u.cfg.ClickHouse.Embedded && u.cfg.ClickHouse.Library == "" {
		if _, err := artifact.Ensure(ctx, "", artifact.ChDB(), u.log); err != nil {
			return installed{}, err
		}
	}
	if _, err := filterModule(ctx, u.cfg, u.log); err != nil {
		return installed{}, err
	}
	return installed{self: self, client: &http.Client{Timeout: 2 * time.Second}}, nil
}

// writeFirstPolicy writes the policy that an operator then edits, and the endpoints,
// which follow from the configuration at every start.
func (u *up) writeFirstPolicy() error {
	// Editors find the schema by the first line of the default policy.
	if err := os.WriteFile(filepath.Join(filepath.Dir(u.cfg.policyFile()), "policy.schema.json"), policy.Schema, 0o600); err != nil {
		return fmt.Errorf("write schema of the policy: %w", err)
	}
	if err := writeOnce(u.cfg.policyFile(), policy.Default); err != nil {
		return err
	}
	return u.writeEndpoints(nil)
}

// writeEndpoints tells the control plane of the core processes of each pool: those of the
// configuration, and more where there are.
func (u *up) writeEndpoints(scaled map[string][]string) error {
	endpoints := "# written by `tracegate up`, from core.pools\nservices:\n  core:\n"
	for _, p := range u.cfg.Core.Pools {
		addrs, ok := scaled[p.Name]
		if !ok {
			addrs = []string{p.Listen}
		}
		endpoints += fmt.Sprintf("    %s: [\"%s\"]\n", p.Name, strings.Join(addrs, `", "`))
	}
	tmp := u.cfg.endpoints() + ".new"
	if err := os.WriteFile(tmp, []byte(endpoints), 0o600); err != nil {
		return fmt.Errorf("write endpoints: %w", err)
	}
	return os.Rename(tmp, u.cfg.endpoints())
}

// stages are the processes of the product in the order in which they need each other.
func (u *up) stages(in installed) [][]local.Part {
	part := func(name, ready string, stop time.Duration, args ...string) local.Part {
		argv := append(append([]string{in.self}, args...), u.opts.arguments(u.cfg)...)
		return local.Part{Name: name, Argv: argv, Ready: readyz(in.client, ready), Stop: stop + drainGrace}
	}
	var traces []local.Part
	if u.cfg.ClickHouse.Embedded {
		traces = append(traces, part(partClickHouse, u.cfg.ClickHouse.Addr, 10*time.Second, "clickhouse"))
	}
	observe := part(partObserve, u.cfg.Observe.Admin, 10*time.Second, "observe")
	services := []local.Part{part(partControlPlane, u.cfg.ControlPlane.API, 5*time.Second, "controlplane")}
	for _, p := range u.cfg.Core.Pools {
		services = append(services, part(corePart(p.Name), p.Admin, u.cfg.Core.Drain+15*time.Second, "core", "--pool", p.Name))
	}
	edge := part(partEdge, u.cfg.Edge.Admin, u.cfg.Edge.Drain, "edge")
	edge.Ready = edgeReady(u.cfg.edgeClient(2*time.Second), u.cfg)
	limits := part(partRateLimit, u.cfg.RateLimit.Listen, time.Second, partRateLimit)
	limits.Ready = whenever // without it limits let pass
	last := []local.Part{edge, limits}
	if u.cfg.Search.Enabled {
		search := part(partSearch, u.cfg.Search.Listen, 5*time.Second, partSearch)
		search.Ready = whenever
		last = append(last, search)
	}
	if u.cfg.Probe.Enabled {
		probe := part(partProbe, u.cfg.Probe.Admin, 5*time.Second, partProbe)
		probe.Ready = whenever // nobody waits for it
		last = append(last, probe)
	}
	return [][]local.Part{traces, {observe}, services, last}
}

// whenever is the readiness of a part that nothing depends on.
func whenever(context.Context) error { return nil }

// arguments make a part read the same configuration.
func (o *options) arguments(cfg Config) []string {
	args := []string{"--data", cfg.Data}
	if o.config != "" {
		args = append(args, "--config", o.config)
	}
	for _, k := range sortedKeys(o.set) {
		args = append(args, "--set", k+"="+o.set[k])
	}
	return args
}

// edgeReady asks through the edge, so that it is ready when its listener and the way
// to core are.
func edgeReady(client *http.Client, cfg Config) func(context.Context) error {
	return func(ctx context.Context) error {
		status, _, err := head(ctx, client, cfg.edgeURL()+"/healthz")
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return fmt.Errorf("edge answers %d", status)
		}
		return nil
	}
}

// firstCircle sends one request through the edge and waits until its spans, of the
// edge and of core, are in ClickHouse under the group that the edge gave it.
func (u *up) firstCircle(ctx context.Context) (traceID string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	traces, err := openStore(u.cfg)
	if err != nil {
		return "", err
	}
	defer traces.Close()
	client := u.cfg.edgeClient(5 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var reason error
	for attempt := 0; ; attempt++ {
		if traceID == "" || attempt%100 == 0 { // a fresh request now and then: the first may have come before the filter
			traceID, reason = u.coloredRequest(ctx, client)
		}
		if traceID != "" {
			spans, err := traces.Trace(ctx, traceID)
			services := map[string]bool{}
			for _, s := range spans {
				services[s.Service] = true
			}
			if services[semconv.ServiceEdge] && services[semconv.ServiceCore] {
				return traceID, nil
			}
			reason = errors.Join(fmt.Errorf("trace %s: %d spans stored", traceID, len(spans)), err)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %w", context.Cause(ctx), reason)
		case <-tick.C:
		}
	}
}

// coloredRequest returns the trace that the edge gave one request; empty where it
// named no group yet.
func (u *up) coloredRequest(ctx context.Context, client *http.Client) (string, error) {
	status, header, err := head(ctx, client, u.cfg.edgeURL()+"/v1/me")
	if err != nil {
		return "", err
	}
	group, trace := header.Get(semconv.HeaderGroup), header.Get(semconv.HeaderTraceresponse)
	if group == "" || len(trace) < 35 {
		return "", fmt.Errorf("edge answered %d without a group: its filter is not in place", status)
	}
	id := trace[3:35]
	if _, err := hex.DecodeString(id); err != nil {
		return "", fmt.Errorf("edge named trace %q: %w", trace, err)
	}
	return id, nil
}

// head is the status and the header of a GET's answer.
func head(ctx context.Context, client *http.Client, url string) (status int, header http.Header, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	return res.StatusCode, res.Header, res.Body.Close()
}

// printAddresses tells the user where everything is and what it does not promise.
func (u *up) printAddresses(took time.Duration) {
	c := u.cfg
	fmt.Fprintf(u.out, "\nTracegate is up: one request went round the circle, %.1f s after the start.\n\n", took.Seconds())
	for _, line := range [][2]string{
		{"chat page", c.edgeURL() + "/"},
		{"API (edge)", c.edgeURL() + "/v1/"},
		{"by TLS", c.tlsLine()},
		{"console", "http://" + c.Observe.Console + "/   password: " + filepath.Join(c.secrets(), secretConsole)},
		{"ClickHouse", c.ClickHouse.url() + "/   user " + c.ClickHouse.User + ", password: " + filepath.Join(c.secrets(), secretClickHouse)},
		{"metrics", "http://" + c.Observe.Admin + "/metrics, http://" + c.ControlPlane.API + "/metrics, http://" + c.Edge.Admin + "/stats/prometheus"},
		{"policy", c.policyFile() + "   (saved changes apply at once)"},
	} {
		if line[1] != "" {
			fmt.Fprintf(u.out, "  %-12s %s\n", line[0], line[1])
		}
	}
	if promises := c.promises(); len(promises) > 0 {
		fmt.Fprintln(u.out, "\nWhat the embedded parts do not promise:")
		for _, p := range promises {
			fmt.Fprintln(u.out, "  -", p)
		}
	}
	fmt.Fprintln(u.out, "\nCtrl-C drains and stops; a second Ctrl-C stops at once.")
}
