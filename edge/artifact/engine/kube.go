package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/tracegate/tracegate/edge/child"
)

// KubernetesVersion is the release that kube/kube.mod names.
const KubernetesVersion = "1.36.3"

//go:embed kube/main.go kube/kube.mod kube/kube.sum
var kubeSource embed.FS

// KubernetesComponents are the programs in the folder of [Kubernetes]; beside them
// lies stages.yaml, by which kwok plays the machines that run pods.
var KubernetesComponents = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"}

// Kubernetes has etcd, the API server, the controller manager, the scheduler and
// kwok, which plays nodes. No registry that needs no container engine has them as
// programs, so they are built from their Go modules, pinned by kube/kube.sum: some
// ten minutes of one CPU the first time, nothing afterwards. Because that is as much
// as all other tests together, tests do not build it by themselves: see
// [FindKubernetes].
func Kubernetes(ctx context.Context, log *slog.Logger) (Engine, error) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		return Engine{}, fmt.Errorf("no Kubernetes: it is built from source, and there is no go on PATH")
	}
	name, source, err := kubeFiles()
	if err != nil {
		return Engine{}, err
	}
	home, err := cached(ctx, name, kubeMain, log, func(dir string) error {
		b := kubeBuild{goTool: goTool, dir: dir, log: log}
		return b.run(ctx, source)
	})
	if err != nil {
		return Engine{}, err
	}
	return Engine{Bin: home}, nil
}

// FindKubernetes is [Kubernetes] where it has been built, and else an error that says
// how to.
func FindKubernetes() (Engine, error) {
	name, _, err := kubeFiles()
	if err != nil {
		return Engine{}, err
	}
	dir, err := cacheDir()
	if err != nil {
		return Engine{}, err
	}
	home := filepath.Join(dir, "engines", name)
	if _, err := os.Stat(filepath.Join(home, kubeMain)); err != nil {
		return Engine{}, errors.New("Kubernetes is not built: `go tool task test:kube` builds it, once")
	}
	return Engine{Bin: home}, nil
}

// kubeMain is written last.
const kubeMain = "stages.yaml"

// kubeFiles are the files of the module to build, and the name of the folder that is
// made of them.
func kubeFiles() (name string, source map[string][]byte, err error) {
	source = map[string][]byte{}
	sum := sha256.New()
	for _, f := range []struct{ name, as string }{{"main.go", "main.go"}, {"kube.mod", "go.mod"}, {"kube.sum", "go.sum"}} {
		data, err := kubeSource.ReadFile("kube/" + f.name)
		if err != nil {
			return "", nil, fmt.Errorf("read build of Kubernetes: %w", err)
		}
		source[f.as] = data
		sum.Write(data)
	}
	return "kubernetes-" + KubernetesVersion + "-" + hex.EncodeToString(sum.Sum(nil))[:8] + "-" + runtime.GOOS + "-" + runtime.GOARCH, source, nil
}

// kubeBuild makes one folder of programs.
type kubeBuild struct {
	goTool, dir string
	log         *slog.Logger
}

func (b kubeBuild) run(ctx context.Context, source map[string][]byte) error {
	module := filepath.Join(b.dir, "source")
	if err := os.Mkdir(module, 0o755); err != nil {
		return err
	}
	for name, data := range source {
		if err := os.WriteFile(filepath.Join(module, name), data, 0o600); err != nil {
			return err
		}
	}
	if err := b.compile(ctx, module); err != nil {
		return err
	}
	for _, name := range KubernetesComponents {
		if err := os.Symlink("kube", filepath.Join(b.dir, name)); err != nil {
			return err
		}
	}
	stages, err := b.stages(ctx, module)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(module); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, kubeMain), stages, 0o644)
}

// goEnv fixes what would make everything be compiled twice, or by other rules.
var goEnv = []string{"CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off"}

// compile says how far it is, by the packages that go names as it starts with them.
func (b kubeBuild) compile(ctx context.Context, module string) error {
	packages, err := run(ctx, module, goEnv, b.goTool, "list", "-deps", "main.go")
	if err != nil {
		return fmt.Errorf("get modules: %w: connect this machine, or set GOPROXY to a mirror", err)
	}
	of := strings.Count(packages, "\n")
	ldflags := "-s -w"
	minor := strings.Split(KubernetesVersion, ".")[1]
	for _, p := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		ldflags += fmt.Sprintf(" -X %s.gitVersion=v%s -X %s.gitMajor=1 -X %s.gitMinor=%s -X %s.gitTreeState=clean", p, KubernetesVersion, p, p, minor, p)
	}
	cmd := child.Command(ctx, b.goTool, "build", "-v", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", filepath.Join(b.dir, "kube"), "main.go")
	cmd.Dir, cmd.Env = module, append(os.Environ(), goEnv...)
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	last := make(chan string, 1)
	go func() { last <- b.progress(out, of) }()
	start := time.Now()
	err = cmd.Run()
	in.Close()
	words := <-last
	if err != nil {
		return fmt.Errorf("build Kubernetes: %w: %s", err, words)
	}
	b.log.Info("built", "engine", "kubernetes", "took", time.Since(start).Round(time.Second))
	return nil
}

// progress reads names of packages to the end, and returns the last line.
func (b kubeBuild) progress(out io.Reader, of int) (last string) {
	lines, said := bufio.NewScanner(out), time.Now()
	for n := 1; lines.Scan(); n++ {
		last = lines.Text()
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			b.log.Info("building", "engine", "kubernetes", "packages", n, "of_at_most", of)
		}
	}
	_, _ = io.Copy(io.Discard, out) // after a line that is too long
	return last
}

// stages are kwok's own for machines and pods that are ready at once.
func (b kubeBuild) stages(ctx context.Context, module string) ([]byte, error) {
	home, err := run(ctx, module, goEnv, b.goTool, "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok")
	if err != nil {
		return nil, fmt.Errorf("find kwok: %w", err)
	}
	var out bytes.Buffer
	for _, name := range []string{"node/fast/node-initialize", "pod/fast/pod-ready", "pod/fast/pod-complete", "pod/fast/pod-delete"} {
		stage, err := os.ReadFile(filepath.Join(strings.TrimSpace(home), "kustomize", "stage", filepath.FromSlash(name)+".yaml"))
		if err != nil {
			return nil, fmt.Errorf("read kwok's stages: %w", err)
		}
		out.WriteString("---\n")
		out.Write(stage)
	}
	return out.Bytes(), nil
}
