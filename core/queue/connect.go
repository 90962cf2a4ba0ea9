package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/tracegate/tracegate/mesh/tlsdial"
)

// SASL is how brokers are told who connects. The `doc` tags are its documentation.
type SASL struct {
	Mechanism    string `mapstructure:"mechanism" doc:"PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; empty: brokers are not told who connects. PLAIN to other machines needs tls.enabled"`
	User         string `mapstructure:"user" doc:"user name"`
	PasswordFile string `mapstructure:"password_file" doc:"file of the password, read again for each connection; empty: secrets/kafka.password in the data folder, which you put there"`
}

// The mechanisms.
const (
	mechanismPlain  = "PLAIN"
	mechanismSHA256 = "SCRAM-SHA-256"
	mechanismSHA512 = "SCRAM-SHA-512"
)

var mechanisms = []string{mechanismPlain, mechanismSHA256, mechanismSHA512}

// dialTimeout bounds a connection until it is encrypted; the client's own default.
const dialTimeout = 10 * time.Second

func (c Config) validateConnection() error {
	if err := c.TLS.Validate(); err != nil {
		return fmt.Errorf("tls.%w", err)
	}
	switch s := c.SASL; {
	case s == SASL{}:
		return nil
	case !slices.Contains(mechanisms, s.Mechanism):
		return fmt.Errorf("sasl.mechanism: %q is none of %s", s.Mechanism, strings.Join(mechanisms, ", "))
	case s.User == "":
		return errors.New("sasl.user: must not be empty")
	case s.PasswordFile == "":
		return errors.New("sasl.password_file: must not be empty")
	case s.Mechanism == mechanismPlain && !c.TLS.Enabled:
		if i := slices.IndexFunc(c.Brokers, beyondLoopback); i >= 0 {
			return fmt.Errorf("sasl.mechanism: PLAIN shows the password to whoever is between here and %s: set tls.enabled, or take SCRAM-SHA-512", c.Brokers[i])
		}
	}
	return nil
}

func beyondLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr // the client adds a port
	}
	ip, err := netip.ParseAddr(host)
	return host != "localhost" && (err != nil || !ip.IsLoopback())
}

// connect makes a client, which connects when it is first used.
func (c Config) connect(opts ...kgo.Opt) (*kgo.Client, error) {
	how, err := c.connection()
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(append(how, opts...)...)
}

// connection is how brokers are reached, for any number of clients. It reads the files it
// names once, to say what is wrong with them.
func (c Config) connection() ([]kgo.Opt, error) {
	opts := []kgo.Opt{kgo.SeedBrokers(c.Brokers...)}
	if c.TLS.Enabled {
		d, err := tlsdial.New(c.TLS, dialTimeout)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.Dialer(d.DialContext))
	}
	if c.SASL.Mechanism != "" {
		if _, err := c.SASL.password(); err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(c.SASL.mechanism()))
	}
	return opts, nil
}

func (s SASL) mechanism() sasl.Mechanism {
	credentials := func(context.Context) (scram.Auth, error) {
		password, err := s.password()
		return scram.Auth{User: s.User, Pass: password}, err
	}
	switch s.Mechanism {
	case mechanismSHA256:
		return scram.Sha256(credentials)
	case mechanismSHA512:
		return scram.Sha512(credentials)
	}
	return plain.Plain(func(context.Context) (plain.Auth, error) {
		password, err := s.password()
		return plain.Auth{User: s.User, Pass: password}, err
	})
}

func (s SASL) password() (string, error) {
	raw, err := os.ReadFile(s.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("read sasl.password_file: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}
