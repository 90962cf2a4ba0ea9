// Package tlsdial connects by TLS to servers that are no parts of ours: Kafka, Redis and
// ClickHouse. (Parts know each other by mesh/identity.) Files are read again for each
// connection, so that a renewed certificate needs no restart.
//
// It is a leaf. It makes connections and not configurations for others to connect with:
// what crypto/tls is given once it never reads again, and a check of our own in place of
// its check would have to get the names of hosts right.
package tlsdial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// Config says how a server is spoken to. The `doc` tags are its documentation.
type Config struct {
	Enabled    bool   `mapstructure:"enabled" doc:"speak TLS, 1.2 or newer; false: nothing is encrypted"`
	CAFile     string `mapstructure:"ca_file" doc:"file of the authorities, PEM, of which one must have signed the server's certificate; empty: the system's. This file, and the two below, are read again for each connection"`
	CertFile   string `mapstructure:"cert_file" doc:"file of the certificate, PEM, that the server is shown where it asks for one; empty: none"`
	KeyFile    string `mapstructure:"key_file" doc:"its key file, PEM"`
	ServerName string `mapstructure:"server_name" doc:"name that the server's certificate must have; empty: the host that is connected to"`
}

// Validate names the key that is wrong. It looks at no file.
func (c Config) Validate() error {
	switch {
	case !c.Enabled && c != Config{}:
		return errors.New("enabled: false, and the keys beside it would do nothing")
	case c.CertFile != "" && c.KeyFile == "":
		return errors.New("key_file: missing, and cert_file needs it")
	case c.KeyFile != "" && c.CertFile == "":
		return errors.New("cert_file: missing, and key_file needs it")
	}
	return nil
}

// Dialer makes connections. It is safe for concurrent use.
type Dialer struct {
	cfg Config
	net net.Dialer

	mu   sync.Mutex
	last *tls.Config // made of what was last good in the files
}

// New reads the files once, to say at the start what is wrong with them. timeout bounds a
// connection until it is encrypted.
func New(cfg Config, timeout time.Duration) (*Dialer, error) {
	first, err := cfg.read()
	if err != nil {
		return nil, err
	}
	return &Dialer{cfg: cfg, net: net.Dialer{Timeout: timeout}, last: first}, nil
}

// Dial is what a new Dialer connects by; nil where cfg asks for no TLS.
func Dial(cfg Config, timeout time.Duration) (func(ctx context.Context, network, addr string) (net.Conn, error), error) {
	if !cfg.Enabled {
		return nil, nil
	}
	d, err := New(cfg, timeout)
	if err != nil {
		return nil, err
	}
	return d.DialContext, nil
}

// DialContext connects to host:port, whose certificate must be good for the host, or for
// the name that is configured.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&tls.Dialer{NetDialer: &d.net, Config: d.current()}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s by tls: %w", addr, err)
	}
	return conn, nil
}

func (d *Dialer) current() *tls.Config {
	c, err := d.cfg.read()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.last = c
	}
	return d.last
}

func (c Config) read() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		raw, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read tls.ca_file: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("read tls.ca_file: no certificate in %s", c.CAFile)
		}
	}
	if c.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read tls.cert_file and tls.key_file: %w", err)
		}
		out.Certificates = []tls.Certificate{cert}
	}
	return out, nil
}
