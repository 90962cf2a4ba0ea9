// Package identity lets parts of one installation prove to each other who they are: by
// mutual TLS with certificates of one authority, whose URI says which part it is
// (spiffe://tracegate/edge/edge-1). Files are read again with each handshake, so that a
// renewed certificate needs no restart.
//
// It is a leaf: it makes TLS configurations, and opens no connection. The layout of the
// folder, for parts of one machine or of one image:
//
//	ca.crt                  who is believed (PEM)
//	<part>/tls.crt, tls.key what the part shows
package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Part is a kind of process, and the name of its folder.
type Part string

// The parts.
const (
	ControlPlane Part = "controlplane"
	Edge         Part = "edge" // has a name as well, since there are many
	Observe      Part = "observe"
	Core         Part = "core"
	Probe        Part = "probe"
	Operator     Part = "operator"
)

// Parts are all of them.
func Parts() []Part { return []Part{ControlPlane, Edge, Observe, Core, Probe, Operator} }

const prefix = "spiffe://tracegate/"

// URI is what stands in a part's certificate. name is empty but for edges.
func URI(p Part, name string) string {
	if name == "" {
		return prefix + string(p)
	}
	return prefix + string(p) + "/" + name
}

// Files of a folder.
const (
	CAFile    = "ca.crt"
	ChainFile = "tls.crt"
	KeyFile   = "tls.key"
)

// ErrNoIdentity is a peer whose certificate names no part.
var ErrNoIdentity = errors.New("certificate names no part of this installation")

// ErrOtherPart is a peer that is a part, and not the one that was called.
var ErrOtherPart = errors.New("peer is another part")

// Of says who a peer has proven to be.
func Of(state tls.ConnectionState) (p Part, name string, err error) {
	if len(state.VerifiedChains) == 0 {
		return "", "", errors.New("peer has shown no certificate")
	}
	for _, u := range state.PeerCertificates[0].URIs {
		rest, ok := strings.CutPrefix(u.String(), prefix)
		if !ok {
			continue
		}
		kind, name, _ := strings.Cut(rest, "/")
		return Part(kind), name, nil
	}
	return "", "", ErrNoIdentity
}

// Identity is what one part shows, and whom it believes. It is safe for concurrent use.
type Identity struct {
	dir  string
	part Part

	mu   sync.Mutex
	last *material
}

type material struct {
	cert  tls.Certificate
	roots *x509.CertPool
}

// Load reads the part's certificate once, to say at the start what is wrong with it.
func Load(dir string, p Part) (*Identity, error) {
	i := &Identity{dir: dir, part: p}
	m, err := i.read()
	if err != nil {
		return nil, fmt.Errorf("identity of %s: %w", p, err)
	}
	i.last = m
	return i, nil
}

func (i *Identity) read() (*material, error) {
	roots, err := Roots(i.dir)
	if err != nil {
		return nil, err
	}
	own := filepath.Join(i.dir, string(i.part))
	cert, err := tls.LoadX509KeyPair(filepath.Join(own, ChainFile), filepath.Join(own, KeyFile))
	if err != nil {
		return nil, fmt.Errorf("read %s and %s in %s: %w", ChainFile, KeyFile, own, err)
	}
	return &material{cert, roots}, nil
}

// Roots are the authorities of a folder.
func Roots(dir string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(filepath.Join(dir, CAFile))
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("read authority: no certificate in %s", filepath.Join(dir, CAFile))
	}
	return roots, nil
}

// current is what lies in the folder now, or what was last good in it.
func (i *Identity) current() *material {
	m, err := i.read()
	i.mu.Lock()
	defer i.mu.Unlock()
	if err == nil {
		i.last = m
	}
	return i.last
}

// Server is for listeners. Where mutual, who has no certificate of the authority is not
// let in; else peers prove themselves in another way, such as a token.
func (i *Identity) Server(mutual bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := i.current()
			c := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{m.cert}}
			if mutual {
				c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, m.roots
				c.SessionTicketsDisabled = true // each connection is checked against the authority of its day
			}
			return c, nil
		},
	}
}

// Client is for connections to a part, wherever it is: it is known by its URI, not by
// the host's name.
func (i *Identity) Client(to Part) *tls.Config {
	c := clientOf(func() (*x509.CertPool, error) { return i.current().roots, nil }, to)
	c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &i.current().cert, nil }
	return c
}

// Trust is an [Identity.Client] that has no certificate to show, of a folder that may
// hold no more than the authority.
func Trust(dir string, to Part) *tls.Config {
	return clientOf(func() (*x509.CertPool, error) { return Roots(dir) }, to)
}

func clientOf(roots func() (*x509.CertPool, error), to Part) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The standard check compares names of hosts; the one below is in its place.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errors.New("peer has shown no certificate")
			}
			between := x509.NewCertPool()
			for _, c := range state.PeerCertificates[1:] {
				between.AddCert(c)
			}
			pool, err := roots()
			if err != nil {
				return err
			}
			chains, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between})
			if err != nil {
				return fmt.Errorf("verify peer: %w", err)
			}
			state.VerifiedChains = chains
			p, _, err := Of(state)
			if err == nil && p != to {
				err = fmt.Errorf("%w: %q, not %q", ErrOtherPart, p, to)
			}
			return err
		},
	}
}
