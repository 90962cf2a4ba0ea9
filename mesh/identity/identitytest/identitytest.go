// Package identitytest makes identity folders for tests of any package.
package identitytest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/mesh/identity"
)

// NewAuthority makes one.
func NewAuthority(tb testing.TB) certificate.Authority {
	tb.Helper()
	a, err := certificate.NewAuthority("test", time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// Put issues an identity into a folder, in place of one that is there.
func Put(tb testing.TB, dir string, a certificate.Authority, p identity.Part, name string) certificate.Pair {
	tb.Helper()
	pair, err := a.Issue(certificate.Subject{Name: string(p), ID: identity.URI(p, name)}, time.Now(), time.Hour)
	if err != nil {
		tb.Fatal(err)
	}
	own := filepath.Join(dir, string(p))
	if err := os.MkdirAll(own, 0o700); err != nil {
		tb.Fatal(err)
	}
	Write(tb, filepath.Join(dir, identity.CAFile), a.Chain)
	Write(tb, filepath.Join(own, identity.KeyFile), string(pair.Key))
	Write(tb, filepath.Join(own, identity.ChainFile), pair.Chain)
	return pair
}

// Write replaces a file whole, by a rename.
func Write(tb testing.TB, path, content string) {
	tb.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		tb.Fatal(err)
	}
}

// Load is [identity.Load] of a folder that must be good.
func Load(tb testing.TB, dir string, p identity.Part) *identity.Identity {
	tb.Helper()
	i, err := identity.Load(dir, p)
	if err != nil {
		tb.Fatal(err)
	}
	return i
}
