package artifact

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tracegate/tracegate/edge/child"
)

// pipDownload puts b.File into scratch.
func pipDownload(ctx context.Context, scratch, version string, b Build) error {
	pip, err := findPip(ctx)
	if err != nil {
		return err
	}
	args := append(pip[1:],
		"download", "--no-deps", "--only-binary=:all:", "--platform", b.Tag, "--dest", scratch,
		"--no-input", "--quiet", "--progress-bar", "off", "--disable-pip-version-check",
		"--retries", "2", "--timeout", "15", b.Package+"=="+version)
	return runClient(ctx, scratch, pip[0], args...)
}

// findPip returns the words that start pip here.
func findPip(ctx context.Context) ([]string, error) {
	for _, words := range [][]string{{"python3", "-m", "pip"}, {"pip3"}, {"pip"}} {
		name, err := exec.LookPath(words[0])
		if err != nil {
			continue
		}
		words = append([]string{name}, words[1:]...)
		// A python3 without the pip module is common on Debian.
		if child.Command(ctx, words[0], append(words[1:], "--version")...).Run() == nil {
			return words, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%w: there is no pip (tried python3 -m pip, pip3, pip): install it (Debian: apt-get install python3-pip, macOS: brew install python)", ErrNoClient)
}

// npmPack puts b.File into scratch, with the npm on PATH or one that pip brings.
func npmPack(ctx context.Context, dir, scratch, version string, b Build, log *slog.Logger) error {
	npm, err := findNPM(ctx, dir, log)
	if err != nil {
		return err
	}
	args := append(npm[1:],
		"pack", "--pack-destination", scratch, "--cache", filepath.Join(scratch, "npm"), "--ignore-scripts",
		"--no-audit", "--no-fund", "--no-update-notifier", "--fetch-retries", "2", "--fetch-retry-mintimeout", "1000", "--fetch-retry-factor", "2", "--loglevel", "error",
		b.Package+"@"+version)
	return runClient(ctx, scratch, npm[0], args...)
}

func findNPM(ctx context.Context, dir string, log *slog.Logger) ([]string, error) {
	if name, err := exec.LookPath("npm"); err == nil && child.Command(ctx, name, "--version").Run() == nil {
		return []string{name}, nil
	}
	node, err := Ensure(ctx, dir, Node(), log)
	if err != nil {
		return nil, err
	}
	cli := filepath.Join(filepath.Dir(node), "..", "lib", "node_modules", "npm", "bin", "npm-cli.js")
	return []string{node, cli}, nil
}

// runClient runs a registry client that keeps its temporary files in scratch and
// turns its last words into an error.
func runClient(ctx context.Context, scratch, name string, args ...string) error {
	cmd := child.Command(ctx, name, args...)
	cmd.Dir = scratch // npm reads a package.json of the folder it is started in
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	client := filepath.Base(name)
	if sign := networkSign(out.String()); sign != "" {
		return fmt.Errorf("%w: %s could not reach its registry (%s): connect this machine, or set a mirror in the client's own configuration", ErrNoNetwork, client, sign)
	}
	return fmt.Errorf("run %s: %w: %s", client, err, lastWords(out.String()))
}

// networkSign finds the words by which pip and npm report that they reached nobody.
// Both go on to say that the package does not exist, which would mislead.
func networkSign(out string) string {
	for _, sign := range []string{
		"NewConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionResetError", "ProxyError", "SSLError",
		"Temporary failure in name resolution", "Name or service not known", "Connection refused", "Network is unreachable",
		"ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH", "ERR_SOCKET_TIMEOUT",
	} {
		if strings.Contains(out, sign) {
			return sign
		}
	}
	return ""
}

// lastWords is the last line that says something, bounded.
func lastWords(out string) string {
	last := "it said nothing"
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "npm error A complete log") {
			last = line
		}
	}
	if len(last) > 300 {
		last = last[:300] + "…"
	}
	return last
}
