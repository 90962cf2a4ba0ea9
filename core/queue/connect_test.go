package queue_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/queue"
	"github.com/tracegate/tracegate/mesh/tlsdial"
	"github.com/tracegate/tracegate/mesh/tlsdial/tlsdialtest"
)

// secured is a configuration for the listener of a real Kafka that lets in who has a
// certificate and a password.
func secured(t *testing.T, mechanism, password string) queue.Config {
	t.Helper()
	if os.Getenv("TRACEGATE_TEST_KAFKA") != "" {
		t.Skip("the Kafka that is given has a listener without TLS")
	}
	kafkaAddr(t)
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := unensured(t, kafka.secure)
	cfg.TLS, cfg.SASL = kafka.files.Client(), queue.SASL{Mechanism: mechanism, User: kafkaUser, PasswordFile: file}
	return cfg
}

// TestByTLSAndSASL: all that is done with brokers is done by who has proven who it is.
func TestByTLSAndSASL(t *testing.T) {
	for _, mechanism := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			cfg := ensured(t, secured(t, mechanism, kafkaPassword))
			cfg.Instance = "one" // its leaving is another connection
			r := newRecorder()
			r.refuse = map[string]chat.Reason{"2": chat.ReasonNotMember}
			accept(t, producer(t, cfg, tracing()), message("c0", 0), message("c0", 1), message("c0", 2))
			stop := consumer(t, cfg, tracing(), r, prometheus.NewRegistry())
			r.wait(t, 2)
			r.inOrder(t, 1, 2)
			if l := lettersOf(t, cfg, 1)[0]; l.Reason != chat.ReasonNotMember {
				t.Errorf("dead letter: %+v", l)
			}
			hears(t, cfg, "c0")
			stop()
			if err := queue.Replay(t.Context(), cfg, lettersOf(t, cfg, 1)[0].ID); err != nil {
				t.Error(err)
			}
		})
	}
}

// hears waits until a follower has heard of a conversation.
func hears(t *testing.T, cfg queue.Config, conversation string) {
	t.Helper()
	f, err := queue.NewFollower(cfg, cfg.Group+".follower", "test", prometheus.NewRegistry(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	heard := ""
	err = f.Run(ctx, func(_ context.Context, conversations []string) error {
		heard = conversations[0]
		cancel()
		return nil
	})
	if heard != conversation || err != nil {
		t.Errorf("follower heard of %q, %v", heard, err)
	}
}

// TestBrokersAndClientsRefuse: what is logged says what has failed, and no password.
func TestBrokersAndClientsRefuse(t *testing.T) {
	others := tlsdialtest.New(t)
	for name, tc := range map[string]struct {
		edit func(*queue.Config)
		want string // empty where the broker's word may be lost with the connection
	}{
		"brokers of another authority":   {func(c *queue.Config) { c.TLS = tlsdial.Config{Enabled: true, CAFile: others.CA} }, "by tls: tls: failed to verify certificate: x509"},
		"a client without a certificate": {func(c *queue.Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" }, ""},
		"another password":               {func(*queue.Config) {}, "SASL_AUTHENTICATION_FAILED"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := secured(t, "SCRAM-SHA-512", "of somebody else")
			tc.edit(&cfg)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			log := lines(make(chan string, 1000))
			done := make(chan error, 1)
			go func() { done <- queue.EnsureTopics(ctx, cfg, slog.New(slog.NewTextHandler(log, nil))) }()
			line := ""
			for !strings.Contains(line, "kafka is not ready") { // after what the client itself says
				select {
				case line = <-log:
				case err := <-done:
					t.Fatal("ended:", err)
				}
				if strings.Contains(line, "somebody else") {
					t.Errorf("the password is logged: %s", line)
				}
			}
			if !strings.Contains(line, "create topic") || !strings.Contains(line, tc.want) {
				t.Errorf("logged %s, want %q", line, tc.want)
			}
			cancel()
			<-done
		})
	}
}

// lines are what is logged, while there is room.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

// TestFilesThatAreNotThere are an error at once, and not something to wait for.
func TestFilesThatAreNotThere(t *testing.T) {
	for want, edit := range map[string]func(*queue.Config){
		"read tls.ca_file: ": func(c *queue.Config) { c.TLS = tlsdial.Config{Enabled: true, CAFile: "nowhere"} },
		"read sasl.password_file: ": func(c *queue.Config) {
			c.SASL = queue.SASL{Mechanism: "SCRAM-SHA-256", User: "ann", PasswordFile: "nowhere"}
		},
	} {
		cfg := queue.DefaultConfig()
		edit(&cfg)
		_, ofProducer := queue.NewProducer(cfg, tracing(), prometheus.NewRegistry(), quiet())
		_, ofConsumer := queue.NewConsumer(cfg, tracing(), newRecorder(), prometheus.NewRegistry(), quiet())
		_, ofFollower := queue.NewFollower(cfg, "g", "test", prometheus.NewRegistry(), quiet())
		_, ofLetters := queue.Letters(t.Context(), cfg)
		for name, err := range map[string]error{
			"topics": queue.EnsureTopics(t.Context(), cfg, quiet()), "producer": ofProducer, "consumer": ofConsumer, "follower": ofFollower, "letters": ofLetters,
		} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: want %q, got %v", name, want, err)
			}
		}
	}
}

func TestPlainPasswordsStayHereOrAreEncrypted(t *testing.T) {
	for _, tc := range []struct {
		broker, mechanism string
		tls, ok           bool
	}{
		{"127.0.0.1:9092", "PLAIN", false, true},
		{"localhost:9092", "PLAIN", false, true},
		{"[::1]:9092", "PLAIN", false, true},
		{"10.0.0.5:9092", "PLAIN", false, false},
		{"kafka.example:9092", "PLAIN", false, false},
		{"127.0.0.1.example:9092", "PLAIN", false, false},
		{"kafka.example:9092", "PLAIN", true, true},
		{"kafka.example:9092", "SCRAM-SHA-256", false, true},
	} {
		cfg := queue.DefaultConfig()
		cfg.Brokers = []string{"127.0.0.1:9092", tc.broker}
		cfg.TLS.Enabled, cfg.SASL = tc.tls, queue.SASL{Mechanism: tc.mechanism, User: "ann", PasswordFile: "password"}
		err := cfg.Validate()
		if tc.ok != (err == nil) {
			t.Errorf("%+v: %v", tc, err)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), "sasl.mechanism: ") || !strings.Contains(err.Error(), tc.broker)) {
			t.Errorf("%+v: %v, want the key and the broker", tc, err)
		}
	}
}
