package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tracegate/tracegate/edge/load"
	"github.com/tracegate/tracegate/mesh/freeport"
	"github.com/tracegate/tracegate/mesh/local"
	"github.com/tracegate/tracegate/observability/dashboards"
	"github.com/tracegate/tracegate/observability/engine/enginetest"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/store"
)

// binary builds tracegate as a release does, once: what users run, without the race
// detector, which would make ten processes too slow to keep what they promise.
var binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryFolder, "tracegate")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// binaryFolder outlives the test that builds first.
var binaryFolder string

func TestMain(m *testing.M) {
	enginetest.Child()
	dir, err := os.MkdirTemp("", "tracegate-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaryFolder = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// product is a tracegate of its own for a test: free ports, temporary data.
type product struct {
	path string // of the binary
	dir  string
	args []string
	cfg  Config
}

func newProduct(t *testing.T, change ...func(*Config)) product {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := defaultConfig()
	cfg.Data = filepath.Join(dir, "data")
	next := func() string { return freeport.ForTest(t) }
	cfg.Edge.Listen, cfg.Edge.Admin = next(), next()
	cfg.ControlPlane.XDS, cfg.ControlPlane.API = next(), next()
	for i := range cfg.Core.Pools {
		cfg.Core.Pools[i].Listen, cfg.Core.Pools[i].Admin = next(), next()
	}
	cfg.Observe.OTLP, cfg.Observe.HTTP, cfg.Observe.Console, cfg.Observe.Admin = next(), next(), next(), next()
	cfg.ClickHouse.Addr, cfg.Probe.Admin, cfg.Search.Listen, cfg.RateLimit.Listen = next(), next(), next(), next()
	cfg.Kafka.Brokers, cfg.Redis.Addrs = []string{next()}, []string{next()}
	for _, c := range change {
		c(&cfg)
	}
	var yaml bytes.Buffer
	printConfig(&yaml, cfg)
	file := filepath.Join(dir, "tracegate.yaml")
	if err := os.WriteFile(file, yaml.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return product{path: path, dir: dir, args: []string{"--config", file}, cfg: cfg}
}

func (p product) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.path, append(args, p.args...)...)
	cmd.Env = append(os.Environ(), local.Supervised+"=1") // it ends with this test's end of the pipe
	return cmd
}

// instance is a running `tracegate up`.
type instance struct {
	cmd  *exec.Cmd
	out  *output
	logs *output
	done chan error
}

// output collects what a process writes, and can be read meanwhile.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func (p product) up(t *testing.T) *instance {
	t.Helper()
	i := &instance{out: &output{}, logs: &output{}, done: make(chan error, 1)}
	i.cmd = p.command(context.Background(), "up")
	i.cmd.Stdout, i.cmd.Stderr = i.out, i.logs
	stdin, err := i.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := i.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		i.done <- i.cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		stdin.Close() // tells all its processes to end, before their folder is removed
		<-ended
		if t.Failed() {
			t.Logf("output:\n%s\nlogs:\n%s", i.out, i.logs)
		}
	})
	deadline := time.After(3 * time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(i.out.String(), "Ctrl-C drains") {
		select {
		case err := <-i.done:
			t.Fatalf("up ended: %v", err)
		case <-deadline:
			t.Fatal("up did not close the circle within 3 minutes")
		case <-tick.C:
		}
	}
	return i
}

// stop interrupts once, and fails the test where up does not end with 0.
func (i *instance) stop(t *testing.T) {
	t.Helper()
	if err := i.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-i.done:
		if err != nil {
			t.Fatalf("up ended with %v after one interrupt", err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("up did not end within 2 minutes")
	}
}

func TestUpClosesTheCircleAndKeepsItsData(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the whole product")
	}
	p := newProduct(t)
	first := p.up(t)
	for _, want := range []string{p.cfg.Edge.Listen, p.cfg.Observe.Console, p.cfg.ClickHouse.Addr, "do not promise", "kfake", "miniredis", "SQLite", "chDB"} {
		if !strings.Contains(first.out.String(), want) {
			t.Errorf("the printed text does not mention %q", want)
		}
	}
	circle(t, p)
	operate(t, p)
	poolsSayHowFullTheyAre(t, p)
	askTraces(t, p)
	aFaultIsDecidedOn(t, p)
	askMetrics(t, p)

	token := logIn(t, p.cfg, "keeper", true)
	first.stop(t)
	second := p.up(t)
	if logIn(t, p.cfg, "keeper", false) == "" || token == "" {
		t.Error("the account of the first run cannot log in after a restart")
	}
	second.stop(t)
}

// aFaultIsDecidedOn plays one of the lab's faults: the group that fails is isolated and
// released, and nothing else is done. The objective is far above what a busy machine needs,
// which leaves faults of latency out: they must break it within seconds.
func aFaultIsDecidedOn(t *testing.T, p product) {
	t.Helper()
	var r load.DecisionsReport
	lab(t, p, &r, "decisions", "--fault", "errors", "--objective", "2s", "--rate", "20", "--users", "4")
	if len(r.Faults) != 1 {
		t.Errorf("%d faults played, want 1", len(r.Faults))
	}
	for _, f := range r.Faults {
		t.Logf("%s: %.0f s, %s", f.Name, f.Took, f.Reason)
		if len(f.Wrong)+len(f.Missing) > 0 {
			t.Errorf("%s: wrong %q, missing %q; decisions %+v", f.Name, f.Wrong, f.Missing, f.Done)
		}
	}
}

// lab runs one of the labs against p, reads its report, and says whether it ended as one
// whose promises all held.
func lab(t *testing.T, p product, report any, name string, args ...string) (held bool) {
	t.Helper()
	cmd := p.command(t.Context(), append([]string{"load", name, "-o", "json"}, args...)...)
	cmd.Stdin = blockingInput(t)
	var out, logs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &logs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 2) { // 2: a promise was broken
		t.Fatalf("load %s: %v\n%s", name, err, &logs)
	}
	if err := json.Unmarshal(out.Bytes(), report); err != nil {
		t.Fatalf("load %s printed no report: %v\n%s\n%s", name, err, &out, &logs)
	}
	return err == nil
}

// circle runs the lab's story against p and checks the promises that are not about
// time: a shared machine keeps those too seldom for a test.
func circle(t *testing.T, p product) {
	t.Helper()
	var r load.Report
	held := lab(t, p, &r, "circle", "--duration", "30s", "--rate", "20", "--users", "4")
	timed := []string{"decision", "programmed", "pace"}
	for _, promise := range r.Promises {
		if !promise.Held && !slices.Contains(timed, promise.Key) {
			t.Errorf("promise %s (%s): %s", promise.Key, promise.Claim, promise.Measured)
		}
	}
	if held != r.OK {
		t.Errorf("that its promises held, %t, is not what the report says: ok %t", held, r.OK)
	}
	for _, event := range []string{load.EventDecision, load.EventProgrammed, load.EventFirstIsolated, load.EventSocketsMoved, load.EventRelease} {
		if !slices.ContainsFunc(r.Timeline, func(m load.Mark) bool { return m.Event == event && !m.Time.IsZero() }) {
			t.Errorf("the timeline lacks %s", event)
		}
	}
}

// ctl is what an operator's command says, and why it fails.
func (p product) ctl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := p.command(t.Context(), append([]string{"ctl"}, args...)...)
	cmd.Stdin = blockingInput(t)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// operate does what an operator does with a policy.
func operate(t *testing.T, p product) {
	t.Helper()
	ctl := func(args ...string) string {
		t.Helper()
		out, err := p.ctl(t, args...)
		if err != nil {
			t.Fatalf("ctl %v: %v\n%s", args, err, out)
		}
		return out
	}
	says := func(out string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("does not say %q:\n%s", w, out)
			}
		}
	}
	changed := filepath.Join(p.dir, "changed.yaml")
	document := strings.Replace(ctl("policy"), "    routes:\n", "    rules:\n      - {name: teapot, match: [{path: /tea}], directResponse: {status: 418}}\n    routes:\n", 1)
	if err := os.WriteFile(changed, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	says(ctl("validate", "--envoy", changed), "valid")
	says(ctl("diff", changed), "+      - {name: teapot", "rds", "changed")
	says(ctl("explain", "GET", "http://a.test/tea", "--policy", changed), "418", "by rule teapot")
	says(ctl("explain", "GET", "http://a.test/v1/me", "-H", "x-env: canary", "-o", "json"), `"action": "serve"`, `"pool": "canary"`)
	says(ctl("apply", changed, "--reason", "tea"), "in_force", "tea")
	teapot(t, "http://"+p.cfg.Edge.Listen+"/tea")
	says(ctl("rollback"), "in_force", "back to revision 1")
	says(ctl("history"), "superseded", "in_force")
	says(ctl("diff", "2"), "revision 2", "+      - {name: teapot")
}

// poolsSayHowFullTheyAre waits until the control plane knows it of all of them; reports may
// be late on a busy machine.
func poolsSayHowFullTheyAre(t *testing.T, p product) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		out, err := p.ctl(t, "status")
		if err != nil {
			t.Fatalf("ctl status: %v\n%s", err, out)
		}
		missing := slices.DeleteFunc([]string{"pool core.baseline ", "pool core.canary ", "pool core.isolated ", " CPU ", " queue accepted "}, func(w string) bool { return strings.Contains(out, w) })
		if len(missing) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("does not say %q:\n%s", missing, out)
			return
		}
	}
}

// teapot waits for a rule that every edge has acknowledged: Envoy does so before its
// workers have the routes.
func teapot(t *testing.T, url string) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		res, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode == http.StatusTeapot {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("a rule that is in force gives %s", res.Status)
			return
		}
	}
}

// askTraces finds a message that went through Kafka and looks at its tree.
func askTraces(t *testing.T, p product) {
	t.Helper()
	ctl := func(args ...string) string {
		cmd := p.command(t.Context(), append([]string{"ctl", "traces"}, args...)...)
		cmd.Stdin = blockingInput(t)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("ctl traces %q: %v", args, err)
		}
		return string(out)
	}
	var found []store.Span
	out := ctl("--attr", "messaging.operation=process", "--limit", "1", "-o", "json")
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found) != 1 {
		t.Fatalf("no message was found: %s, %v", out, err)
	}
	tree := ctl("show", found[0].TraceID)
	for _, hop := range []string{"kafka publish", "kafka receive", "kafka process", "sqlite INSERT", "server"} {
		if !strings.Contains(tree, hop) {
			t.Errorf("no %s in the trace:\n%s", hop, tree)
		}
	}
	if routes := ctl("routes", string(found[0].Traffic.Group)); !strings.Contains(routes, semconv.ServiceCore) {
		t.Errorf("routes:\n%s", routes)
	}
}

// metricName is a metric of ours, of Envoy's or of the Go runtime in an expression;
// labels alone have names that look alike.
var metricName = regexp.MustCompile(`\b(?:core|tracegate|traffic|envoy|go|process)_[a-z0-9_]+`)

var metricLabels = []string{"traffic_pool", "envoy_cluster_name", "envoy_response_code_class", "envoy_http_conn_manager_prefix"}

// askMetrics wants every metric that a dashboard names to be served.
func askMetrics(t *testing.T, p product) {
	t.Helper()
	urls := []string{p.cfg.ControlPlane.API + "/metrics", p.cfg.Observe.Admin + "/metrics", p.cfg.Edge.Admin + "/stats/prometheus"}
	for _, pool := range p.cfg.Core.Pools {
		urls = append(urls, pool.Admin+"/metrics")
	}
	served := map[string]bool{}
	for _, url := range urls {
		res, err := http.Get("http://" + url)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if name, ok := strings.CutPrefix(lines.Text(), "# TYPE "); ok {
				served[strings.Fields(name)[0]] = true
			}
		}
		if err := errors.Join(lines.Err(), res.Body.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range dashboards.All() {
		if b.Source != dashboards.Prometheus {
			continue
		}
		for panel, q := range b.Queries() {
			for _, name := range metricName.FindAllString(q.Text, -1) {
				base := strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count")
				if !served[name] && !served[base] && !slices.Contains(metricLabels, name) {
					t.Errorf("dashboard %s, panel %s: nobody serves %s", b.UID, panel.Title, name)
				}
			}
		}
	}
}

// blockingInput is a standard input that ends with the test.
func blockingInput(t *testing.T) io.Reader {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(); r.Close() })
	return r
}

func logIn(t *testing.T, cfg Config, name string, register bool) (token string) {
	t.Helper()
	body := fmt.Sprintf(`{"name":%q,"password":"correct horse"}`, name)
	base := "http://" + cfg.Edge.Listen + "/v1/"
	client := &http.Client{Timeout: 30 * time.Second}
	paths := []string{"sessions"}
	if register {
		paths = []string{"users", "sessions"}
	}
	for _, path := range paths {
		res, err := client.Post(base+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var answer struct{ Token string }
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode >= 300 {
			t.Fatalf("%s: %s, %v", path, res.Status, err)
		}
		token = answer.Token
	}
	return token
}

func TestUpRefusesInOneLine(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the binary")
	}
	busy := httptest.NewServer(http.NotFoundHandler())
	defer busy.Close()
	notAFolder := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(notAFolder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	for _, tc := range []struct {
		name string
		args []string
		env  []string
		want []string
	}{
		{"a port in use", []string{"--set", "observe.console=" + busy.Listener.Addr().String()}, nil, []string{busy.Listener.Addr().String(), "observe.console", "in use"}},
		{"a folder that cannot be written", []string{"--data", filepath.Join(notAFolder, "data")}, nil, []string{"data folder", "--data"}},
		{"an unknown key", []string{"--set", "edge.listn=127.0.0.1:1"}, nil, []string{"edge.listn", "edge.listen"}},
		{"no pip", nil, []string{"PATH=" + empty, "TRACEGATE_CACHE=" + empty}, []string{"pip", "envoy"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newProduct(t)
			cmd := p.command(t.Context(), append([]string{"up"}, tc.args...)...)
			cmd.Args = append(cmd.Args, tc.args...) // after --config, so that they win
			cmd.Env = append(cmd.Env, tc.env...)
			cmd.Stdin = blockingInput(t)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("it started:\n%s", out)
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			last := strings.ToLower(lines[len(lines)-1])
			for _, w := range tc.want {
				if !strings.Contains(last, strings.ToLower(w)) {
					t.Errorf("last line %q does not mention %q", last, w)
				}
			}
		})
	}
}

func TestUpCheckStartsNothing(t *testing.T) {
	p := newProduct(t)
	cmd := p.command(t.Context(), "up", "--check")
	cmd.Stdin = blockingInput(t)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "fine") {
		t.Errorf("up --check: %v\n%s", err, out)
	}
	if _, err := os.Stat(p.cfg.statusFile()); err == nil {
		t.Error("it started parts")
	}
}

func TestUpEndsAtOnceOnTheSecondInterrupt(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	kill, stop := secondInterrupt(ctx)
	defer stop()
	interrupt()
	select {
	case <-kill.Done():
		t.Fatal("the first interrupt killed")
	default:
	}
	// The handler is installed in a goroutine: interrupt until it has seen one. The
	// test itself listens too, or an early interrupt would end it.
	ignore := make(chan os.Signal, 1)
	signal.Notify(ignore, os.Interrupt)
	defer signal.Stop(ignore)
	for kill.Err() == nil {
		if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		select {
		case <-kill.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}
