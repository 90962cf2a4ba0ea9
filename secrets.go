package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/mesh/webhook"
)

// The files of the secrets folder. All are made at first start, none has a default.
const (
	secretControl    = "ctl.token"    // of operators
	secretViewer     = "viewer.token" // of who may only look
	secretTokens     = "tokens.yaml"  // names and digests of more of them; no secret, and not made
	secretConsole    = "console.password"
	secretLook       = "console.viewer.password" // of the console, for who may only look
	secretClickHouse = "clickhouse.password"
	secretRedis      = "redis.password"
	secretKafka      = "kafka.password" // of brokers that ask for one; not made
	secretWebhook    = "webhook.key"    // of decisions
	secretPush       = "push.key"       // of notifications of messages
	secretSearch     = "search.token"   // of core processes
	secretFiles      = "files.key"      // signs download links
	secretUpdates    = "updates.key"    // of signed policies
	secretLastGood   = "lastgood.key"   // signs the last good configuration; the control plane makes it
	secretJWT        = "jwt.ed25519"    // PEM, PKCS #8
)

// makeSecrets writes the secrets that are missing, readable by their owner only.
func makeSecrets(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make secrets folder: %w", err)
	}
	for name, length := range map[string]int{secretControl: 32, secretViewer: 32, secretConsole: 12, secretLook: 12, secretClickHouse: 24, secretRedis: 24, secretFiles: 32, secretSearch: 24} {
		random := make([]byte, length)
		_, _ = rand.Read(random) // never returns an error: crypto/rand.Read
		if err := writeOnce(filepath.Join(dir, name), []byte(base64.RawURLEncoding.EncodeToString(random)+"\n")); err != nil {
			return err
		}
	}
	for _, name := range []string{secretWebhook, secretPush, secretUpdates} {
		var random [32]byte
		_, _ = rand.Read(random[:])
		if err := writeOnce(filepath.Join(dir, name), []byte(webhook.NewSecret(random)+"\n")); err != nil {
			return err
		}
	}
	key, err := account.NewKeyPEM(rand.Reader)
	if err != nil {
		return fmt.Errorf("session key: %w", err)
	}
	return writeOnce(filepath.Join(dir, secretJWT), key)
}

// writeOnce writes a file whole or not at all, and leaves one that exists alone.
func writeOnce(file string, content []byte) error {
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp := file + ".new"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(file), err)
	}
	return os.Rename(tmp, file)
}

func readSecret(dir, name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}
