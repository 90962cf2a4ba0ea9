//go:build !nokubernetes

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/tracegate/tracegate/controlplane"
	"github.com/tracegate/tracegate/controlplane/source/kubernetes"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/identity"
	"github.com/tracegate/tracegate/mesh/keda"
	"github.com/tracegate/tracegate/mesh/metricsapi"
	meshoperator "github.com/tracegate/tracegate/mesh/operator"
	"github.com/tracegate/tracegate/observability/semconv"
)

// statisticsStale is how old the newest request may be for autoscaling.
const statisticsStale = 5 * time.Second

func runOperator(ctx context.Context, cfg Config, log *slog.Logger) error {
	k := cfg.Kubernetes
	cluster, err := meshoperator.LoadCluster(k.Kubeconfig)
	if err != nil {
		return fmt.Errorf("kubernetes.kubeconfig: %w", err)
	}
	c := meshoperator.DefaultConfig()
	c.Cluster, c.Namespaces, c.LeaderNamespace, c.Metrics, c.Health = cluster, k.Namespaces, k.Lease, k.Metrics, k.Health
	if name, err := os.Hostname(); err == nil {
		c.Instance = name
	}
	var deps meshoperator.Deps
	if !k.Traces {
		return operateMeasured(ctx, cfg, c, deps, log)
	}
	tracing, err := setupTracing(ctx, cfg, identity.Operator, semconv.ServiceOperator, "", newRegistry(), log)
	if err != nil {
		return err
	}
	deps.Tracing = tracing.Tracer
	return withTracing(ctx, tracing, log, func() error { return operateMeasured(ctx, cfg, c, deps, log) })
}

// operateMeasured gives the operator statistics, and answers autoscalers with them, where it shall.
func operateMeasured(ctx context.Context, cfg Config, c meshoperator.Config, deps meshoperator.Deps, log *slog.Logger) error {
	k := cfg.Kubernetes
	if !k.Statistics {
		return meshoperator.Run(ctx, c, deps, log)
	}
	traces, err := openStore(cfg)
	if err != nil {
		return err
	}
	defer traces.Close()
	measured := make(chan struct{}, 1)
	statistics := &metricsapi.Poller{Stats: traces, Delay: 500 * time.Millisecond, Measured: measured, Log: log}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return statistics.Run(ctx) })
	deps.Measured = measured
	deps.Rate = func(service, pool string, of group.ID) (float64, error) {
		return statistics.Rate(service, pool, of, statisticsStale)
	}
	deps.Path = callPaths(traces)
	work.Go(func() error { return meshoperator.Run(ctx, c, deps, log) })
	if k.Autoscaler == "" && k.KEDA == "" {
		return work.Wait()
	}
	groups, err := metricsapi.NewGroups(c.Cluster)
	if err != nil {
		return err
	}
	work.Go(func() error { return groups.Run(ctx) })
	if k.Autoscaler != "" {
		work.Go(func() error { return answerAutoscalers(ctx, k, c, statistics, groups, log) })
	}
	if k.KEDA != "" {
		work.Go(func() error { return answerKEDA(ctx, k, statistics, groups) })
	}
	return work.Wait()
}

// answerAutoscalers is Kubernetes' own way to metrics.
func answerAutoscalers(ctx context.Context, k KubernetesConfig, c meshoperator.Config, statistics *metricsapi.Poller, groups *metricsapi.Groups, log *slog.Logger) error {
	tls, err := metricsapi.TLS(ctx, c.Cluster, k.Cert, k.Key)
	if err != nil {
		return fmt.Errorf("kubernetes.autoscaler: %w", err)
	}
	api := metricsapi.API{Last: statistics.Last, Group: groups.ID, StaleAfter: statisticsStale, Now: time.Now, Log: log}
	server := &http.Server{
		Addr: k.Autoscaler, Handler: api.Handler(), TLSConfig: tls,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // its answers are short, and asked for again
	defer stop()
	if err := server.ListenAndServeTLS("", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("kubernetes.autoscaler: %w", err)
	}
	return nil
}

// answerKEDA is for clusters whose autoscalers KEDA makes.
func answerKEDA(ctx context.Context, k KubernetesConfig, statistics *metricsapi.Poller, groups *metricsapi.Groups) error {
	tls, err := metricsapi.Mutual(k.Cert, k.Key, k.KEDAClients)
	if err != nil {
		return fmt.Errorf("kubernetes.keda: %w", err)
	}
	lis, err := net.Listen("tcp", k.KEDA)
	if err != nil {
		return fmt.Errorf("kubernetes.keda: %w", err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(tls)), grpc.MaxRecvMsgSize(64<<10), grpc.MaxConcurrentStreams(1000))
	scaler := keda.Scaler{Last: statistics.Last, Group: groups.ID, StaleAfter: statisticsStale, Now: time.Now}
	if err := scaler.Register(server); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(lis); err != nil {
		return fmt.Errorf("kubernetes.keda: %w", err)
	}
	return nil
}

// fromKubernetes lets the control plane read from the cluster, where it shall.
func fromKubernetes(cfg Config, deps *controlplane.Deps, log *slog.Logger) error {
	namespace := cfg.Kubernetes.Source
	if namespace == "" {
		return nil
	}
	cluster, err := meshoperator.LoadCluster(cfg.Kubernetes.Kubeconfig)
	if err != nil {
		return fmt.Errorf("kubernetes.kubeconfig: %w", err)
	}
	own := kubernetes.Endpoints{Cluster: cluster, Namespace: namespace, Port: cfg.Kubernetes.Port, Log: log}
	deps.Places = own.Run
	if len(cfg.Kubernetes.Backups) > 0 {
		all := kubernetes.Clusters{Own: own}
		for i, file := range cfg.Kubernetes.Backups {
			other := own
			if other.Cluster, err = meshoperator.LoadCluster(file); err != nil {
				return fmt.Errorf("kubernetes.backups[%d]: %w", i, err)
			}
			all.Others = append(all.Others, kubernetes.Other{Name: file, Endpoints: other})
		}
		deps.Places = all.Run
	}
	if deps.Warm, err = kubernetes.NewWarmer(cluster, namespace); err != nil {
		return err
	}
	deps.Overlay = kubernetes.Resources{Cluster: cluster, Namespace: namespace, Log: log}.Run
	return nil
}
