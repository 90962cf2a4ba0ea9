package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/tracegate/tracegate/edge/child"
	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/kubetest"
	"github.com/tracegate/tracegate/mesh/operator"
	"github.com/tracegate/tracegate/mesh/procfs"
)

const (
	quietTime = 30 * time.Second       // how long nothing changes
	lookEvery = 100 * time.Millisecond // at 1,000 services, by a bench that shares the machine
)

// usage is what an operator has used up so far.
type usage struct {
	Calls    int            // of the API server, but watches and of its lease
	By       map[string]int // Calls by verb and resource
	Lease    int            // calls by which it keeps its lease
	Looks    int64          // at a MicroService
	Resident int64          // bytes
	Peak     int64          // of Resident
	CPU      time.Duration
}

// beOperator runs an operator and answers each line of standard input with its usage.
func beOperator(ctx context.Context, kubeconfig string) error {
	admin, err := operator.LoadCluster(kubeconfig)
	if err != nil {
		return err
	}
	admin.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:tracegate:tracegate-operator"}
	admin.QPS, admin.Burst = 0, 0
	var u counted
	admin.Wrap(u.calls.Wrap)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error {
		cfg := operator.Config{Cluster: admin, LeaderNamespace: operator.DefaultConfig().LeaderNamespace, Metrics: "0", Health: "0", Workers: operator.DefaultConfig().Workers}
		return operator.Run(ctx, cfg, operator.Deps{Tracing: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(&u))}, log)
	})
	work.Go(func() error {
		out := json.NewEncoder(os.Stdout)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			if err := out.Encode(u.usage()); err != nil {
				return err
			}
		}
		return errDone // its parent has ended, or wants it to
	})
	if err := work.Wait(); !errors.Is(err, errDone) {
		return err
	}
	return nil
}

var errDone = errors.New("standard input ended")

// counted counts calls, and looks as a span processor.
type counted struct {
	calls kubetest.Calls
	looks atomic.Int64
}

func (c *counted) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (c *counted) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.Name() == "reconcile MicroService" {
		c.looks.Add(1)
	}
}
func (c *counted) Shutdown(context.Context) error   { return nil }
func (c *counted) ForceFlush(context.Context) error { return nil }

func (c *counted) usage() usage {
	asked := c.calls.Counted()
	u := usage{Calls: kubetest.Work(asked), By: map[string]int{}, Looks: c.looks.Load()}
	for call, n := range asked {
		switch {
		case call.Verb == "watch":
		case call.Resource == "leases":
			u.Lease += n
		default:
			u.By[call.String()] += n
		}
	}
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) == nil {
		u.CPU = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	resident, err := procfs.Value("/proc/self/status", "VmRSS:")
	if err != nil {
		return u // memory is not known elsewhere
	}
	peak, _ := procfs.Value("/proc/self/status", "VmHWM:")
	u.Resident, u.Peak = resident<<10, peak<<10
	return u
}

func (u usage) since(before usage) usage {
	out := usage{Calls: u.Calls - before.Calls, By: map[string]int{}, Lease: u.Lease - before.Lease, Looks: u.Looks - before.Looks, CPU: u.CPU - before.CPU}
	for call, n := range u.By {
		if more := n - before.By[call]; more > 0 {
			out.By[call] = more
		}
	}
	return out
}

// process is an operator that runs.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startOperator(ctx context.Context, kubeconfig string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: child.Command(ctx, self, "-cluster", kubeconfig)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = json.NewDecoder(out)
	return p, p.cmd.Start()
}

func (p *process) usage() (u usage, err error) {
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		return u, fmt.Errorf("ask the operator: %w", err)
	}
	return u, p.out.Decode(&u)
}

// stop ends it and returns when it has ended.
func (p *process) stop() error {
	p.in.Close()
	return p.cmd.Wait()
}

// operatorReport is what was measured.
type operatorReport struct {
	services int
	written  time.Duration // from the first service until all that the operator makes of them is written
	steady   time.Duration // until the last has settled
	first    usage         // until then
	quiet    usage         // in quietTime
	began    time.Duration // from the start of another operator to its first look at a service
	restart  time.Duration // to its look at the last
	second   usage         // until then
}

func operate(ctx context.Context, c config, dir string, log *slog.Logger) (result, error) {
	k, err := startCluster(ctx, kubetest.Config{Controllers: true, Nodes: 10}, dir, log)
	if err != nil {
		return nil, err
	}
	defer k.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := bindOperator(ctx, k.client); err != nil {
		return nil, err
	}
	ended, err := k.watch(ctx, &v1alpha1.MicroService{})
	if err != nil {
		return nil, err
	}
	kubeconfig, err := k.Kubeconfig("bench", k.Admin())
	if err != nil {
		return nil, err
	}
	r := operatorReport{services: c.services}
	if err := r.measure(ctx, k, kubeconfig); err != nil {
		return nil, err
	}
	stop()
	return r, ended()
}

func (r *operatorReport) measure(ctx context.Context, k *cluster, kubeconfig string) error {
	p, err := startOperator(ctx, kubeconfig)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := k.createMany(ctx, r.services); err != nil {
		return err
	}
	at, err := every(ctx, lookEvery, "all is written", 20*time.Minute, func() (bool, error) { return k.all(ctx, r.services, written) })
	if err != nil {
		return err
	}
	r.written = at.Sub(start)
	if at, err = every(ctx, lookEvery, "every service settles", 20*time.Minute, func() (bool, error) { return k.all(ctx, r.services, settled) }); err != nil {
		return err
	}
	r.steady = at.Sub(start)
	if r.first, err = p.calm(ctx); err != nil {
		return err
	}
	if err := pause(ctx, quietTime); err != nil {
		return err
	}
	after, err := p.usage()
	if err != nil {
		return err
	}
	r.quiet = after.since(r.first)
	r.first.Peak = after.Peak
	if err := p.stop(); err != nil {
		return fmt.Errorf("operator: %w", err)
	}
	start = time.Now()
	if p, err = startOperator(ctx, kubeconfig); err != nil {
		return err
	}
	at, err = every(ctx, lookEvery, "another operator looks", 5*time.Minute, func() (bool, error) {
		r.second, err = p.usage()
		return r.second.Looks > 0, err
	})
	if err != nil {
		return err
	}
	r.began = at.Sub(start)
	at, err = every(ctx, lookEvery, "another operator has looked at every service", 5*time.Minute, func() (bool, error) {
		r.second, err = p.usage()
		return r.second.Looks >= int64(r.services), err
	})
	if err != nil {
		return err
	}
	r.restart = at.Sub(start)
	if r.second, err = p.calm(ctx); err != nil {
		return err
	}
	return p.stop()
}

// calm returns when the operator has not called for two seconds.
func (p *process) calm(ctx context.Context) (usage, error) {
	last, err := p.usage()
	for err == nil {
		if err = pause(ctx, 2*time.Second); err != nil {
			break
		}
		var now usage
		if now, err = p.usage(); err == nil && now.Calls == last.Calls {
			return now, nil
		}
		last = now
	}
	return last, err
}

func (c *cluster) createMany(ctx context.Context, n int) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(8)
	for i := range n {
		work.Go(func() error {
			return c.create(ctx, fmt.Sprintf(`
metadata: {name: service-%d}
spec:
  image: example.org/service:1
  ports: [{name: http, port: 8080}]
  autoscaling: {minReplicas: 1, maxReplicas: 10, metrics: [{qpsPerPod: 200}]}
`, i), &v1alpha1.MicroService{})
		})
	}
	return work.Wait()
}

// all says whether there are n services and each is as it should be.
func (c *cluster) all(ctx context.Context, n int, is func(*v1alpha1.MicroService) bool) (bool, error) {
	var all v1alpha1.MicroServiceList
	if err := c.seen.List(ctx, &all, client.UnsafeDisableDeepCopy); err != nil { // they are only read
		return false, err
	}
	done := 0
	for i := range all.Items {
		if is(&all.Items[i]) {
			done++
		}
	}
	return done == n, nil
}

// written says whether the operator has done its part.
func written(ms *v1alpha1.MicroService) bool {
	return ms.Status.ObservedGeneration == ms.Generation && meta.IsStatusConditionTrue(ms.Status.Conditions, v1alpha1.ConditionProgrammed)
}

// settled says whether Kubernetes' controllers have done theirs.
func settled(ms *v1alpha1.MicroService) bool {
	return written(ms) && meta.IsStatusConditionTrue(ms.Status.Conditions, v1alpha1.ConditionReady) &&
		meta.IsStatusConditionFalse(ms.Status.Conditions, v1alpha1.ConditionProgressing)
}
