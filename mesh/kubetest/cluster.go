// Package kubetest runs Kubernetes on this machine for tests and benchmarks: etcd and
// the API server, and where they are asked for the controller manager (deployments,
// autoscalers, garbage collection), the scheduler, and kwok, which plays the machines
// that pods run on. They are the real programs, built from source by
// edge/artifact/engine; only kubelets and containers are played.
//
// controller-runtime's envtest would start the first two and no more, and cannot take
// the API server away and bring it back, which operators have to live through.
package kubetest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/edge/artifact/engine"
	"github.com/tracegate/tracegate/mesh/freeport"
)

// Config says what to run. The zero value is etcd and the API server.
type Config struct {
	// Controllers adds the controller manager, the scheduler and Nodes machines.
	Controllers bool
	Nodes       int // 1 where zero
	// AutoscalerSync is how often autoscalers are evaluated; Kubernetes' 15 s where zero.
	AutoscalerSync time.Duration
}

// Cluster is Kubernetes that runs. Its methods are for one goroutine.
type Cluster struct {
	cfg   Config
	bin   string
	dir   string
	log   *slog.Logger
	ca    certificate.Authority
	ports struct{ etcd, peer, api, controllers, scheduler int }
	admin *rest.Config

	etcd, api *process
	others    []*process
}

// Start runs a cluster that keeps everything in dir. [Cluster.Close] ends it.
func Start(ctx context.Context, cfg Config, dir string, log *slog.Logger) (*Cluster, error) {
	kube, err := engine.Kubernetes(ctx, log)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		c := &Cluster{cfg: cfg, bin: kube.Bin, dir: filepath.Join(dir, strconv.Itoa(try)), log: log}
		err := c.run(ctx)
		if err == nil {
			return c, nil
		}
		c.Close()
		if try == 2 || ctx.Err() != nil {
			return nil, fmt.Errorf("start Kubernetes: %w", err)
		}
		log.Warn("kubernetes did not start, trying again on other ports", "error", err)
	}
}

func (c *Cluster) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	first, err := freeport.Row("127.0.0.1", 5, 1)
	if err != nil {
		return err
	}
	c.ports.etcd, c.ports.peer, c.ports.api, c.ports.controllers, c.ports.scheduler = first, first+1, first+2, first+3, first+4
	if err := c.writePKI(); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	if c.admin, err = c.User("admin", "system:masters"); err != nil {
		return err
	}
	start := time.Now()
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return err
	}
	if c.cfg.Controllers {
		if err := c.startControllers(ctx); err != nil {
			return err
		}
	}
	c.log.Info("kubernetes runs", "took", time.Since(start).Round(time.Millisecond), "dir", c.dir)
	return nil
}

// Close ends everything, in reverse.
func (c *Cluster) Close() {
	for i := len(c.others) - 1; i >= 0; i-- {
		c.others[i].stop()
	}
	c.others = nil
	c.api.stop()
	c.etcd.stop()
	c.api, c.etcd = nil, nil
}

func (c *Cluster) startEtcd(ctx context.Context) (err error) {
	client, peer := "http://127.0.0.1:"+strconv.Itoa(c.ports.etcd), "http://127.0.0.1:"+strconv.Itoa(c.ports.peer)
	c.etcd, err = c.start("etcd", "--data-dir", filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	if err != nil {
		return err
	}
	web := &http.Client{Timeout: time.Second}
	return c.etcd.await(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, client+"/health", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := web.Do(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	})
}

// StartAPIServer starts the API server, also again after [Cluster.StopAPIServer] with
// all that was stored, and returns when it is ready.
func (c *Cluster) StartAPIServer(ctx context.Context) (err error) {
	pki := filepath.Join(c.dir, "pki") + "/"
	c.api, err = c.start("kube-apiserver", "--etcd-servers=http://127.0.0.1:"+strconv.Itoa(c.ports.etcd),
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+strconv.Itoa(c.ports.api), "--endpoint-reconciler-type=none",
		"--tls-cert-file="+pki+"server.crt", "--tls-private-key-file="+pki+"server.key", "--client-ca-file="+pki+"ca.crt",
		"--service-account-key-file="+pki+"accounts.key", "--service-account-signing-key-file="+pki+"accounts.key", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=Node,RBAC", "--profiling=false", "--shutdown-delay-duration=0s", "--shutdown-send-retry-after=false",
		"--requestheader-client-ca-file="+pki+"front.crt", "--requestheader-allowed-names=front-proxy-client", "--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file="+pki+"proxy.crt", "--proxy-client-key-file="+pki+"proxy.key")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(c.admin)
	if err != nil {
		return err
	}
	return c.api.await(ctx, func(ctx context.Context) error {
		_, err := client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err != nil {
			return err
		}
		// Namespace default is made after the server says that it is ready.
		_, err = client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// StopAPIServer kills the API server: clients see their connections end.
func (c *Cluster) StopAPIServer() {
	c.api.crash()
	c.api = nil
}

// Admin may do everything.
func (c *Cluster) Admin() *rest.Config { return rest.CopyConfig(c.admin) }

// CA is the certificate, PEM, that everything in the cluster is signed with.
func (c *Cluster) CA() []byte { return []byte(c.ca.Chain) }

// Sign makes a server certificate, PEM, that the cluster trusts.
func (c *Cluster) Sign(name string, names ...string) (cert, key []byte, err error) {
	p, err := issue(c.ca, name, nil, names...)
	return []byte(p.Chain), []byte(p.Key), err
}

// User is a client of somebody in groups; it may do what RBAC says.
func (c *Cluster) User(name string, groups ...string) (*rest.Config, error) {
	p, err := issue(c.ca, name, groups)
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host:            "https://127.0.0.1:" + strconv.Itoa(c.ports.api),
		TLSClientConfig: rest.TLSClientConfig{CAData: c.CA(), CertData: []byte(p.Chain), KeyData: []byte(p.Key)},
		QPS:             1000, Burst: 2000,
	}, nil
}

// Kubeconfig writes a file for programs that want one.
func (c *Cluster) Kubeconfig(name string, cfg *rest.Config) (path string, err error) {
	path = filepath.Join(c.dir, name+".kubeconfig")
	return path, clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: cfg.Host, CertificateAuthorityData: cfg.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"test": {ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData}},
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "test"}},
		CurrentContext: "test",
	}, path)
}

func (c *Cluster) startControllers(ctx context.Context) error {
	pki := filepath.Join(c.dir, "pki") + "/"
	component := func(name, user string, port int, args ...string) error {
		cfg, err := c.User(user)
		if err != nil {
			return err
		}
		path, err := c.Kubeconfig(name, cfg)
		if err != nil {
			return err
		}
		p, err := c.start(name, append(args, "--kubeconfig="+path, "--authentication-kubeconfig="+path, "--authorization-kubeconfig="+path,
			"--bind-address=127.0.0.1", "--secure-port="+strconv.Itoa(port), "--leader-elect=false")...)
		if err != nil {
			return err
		}
		c.others = append(c.others, p)
		web := &http.Client{Timeout: time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // its certificate is its own; only health is asked
		}}
		defer web.CloseIdleConnections()
		return p.await(ctx, func(ctx context.Context) error { return healthy(ctx, web, port) })
	}
	sync := c.cfg.AutoscalerSync
	if sync == 0 {
		sync = 15 * time.Second
	}
	err := component("kube-controller-manager", "system:kube-controller-manager", c.ports.controllers, "--use-service-account-credentials=true",
		"--root-ca-file="+pki+"ca.crt", "--service-account-private-key-file="+pki+"accounts.key",
		"--horizontal-pod-autoscaler-sync-period="+sync.String())
	if err != nil {
		return err
	}
	if err := component("kube-scheduler", "system:kube-scheduler", c.ports.scheduler); err != nil {
		return err
	}
	path, err := c.Kubeconfig("kwok", c.admin)
	if err != nil {
		return err
	}
	kwok, err := c.start("kwok", "--kubeconfig="+path, "--config="+filepath.Join(c.bin, "stages.yaml"), "--manage-all-nodes",
		"--cidr=10.244.0.0/16", "--node-ip=10.0.0.1", "--node-lease-duration-seconds=40")
	if err != nil {
		return err
	}
	c.others = append(c.others, kwok)
	return c.addNodes(ctx, kwok)
}

func healthy(ctx context.Context, web *http.Client, port int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://127.0.0.1:"+strconv.Itoa(port)+"/healthz", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// addNodes returns when pods can be made and run.
func (c *Cluster) addNodes(ctx context.Context, kwok *process) error {
	client, err := kubernetes.NewForConfig(c.admin)
	if err != nil {
		return err
	}
	for i := range max(c.cfg.Nodes, 1) {
		name := "node-" + strconv.Itoa(i)
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}}}
		if _, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("add node: %w", err)
		}
	}
	return kwok.await(ctx, func(ctx context.Context) error {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, n := range nodes.Items {
			if !ready(n) {
				return fmt.Errorf("node %s is not ready", n.Name)
			}
		}
		_, err = client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

func ready(n corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Client is one of an administrator.
func (c *Cluster) Client() (kubernetes.Interface, error) { return kubernetes.NewForConfig(c.admin) }
