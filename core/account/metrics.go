package account

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/protocol"
)

type metrics struct {
	attempts, sessions *prometheus.CounterVec
	lookErrors         prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	m := metrics{attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "core_account_attempts_total",
		Help: "Registrations, logins, refreshes and changes of passwords by result: ok or the code of the error.",
	}, []string{"action", "result"})}
	m.sessions = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "core_account_sessions_total",
		Help: "What became of sessions: begun, rotated or repeated (a refresh), or why they ended: reused (an old refresh token came again), expired, logout, password, limit.",
	}, []string{"event"})
	for _, e := range []string{"begun", "rotated", "repeated", "reused", "expired", "logout", "password", "limit"} {
		m.sessions.WithLabelValues(e)
	}
	m.lookErrors = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "core_account_look_errors_total", Help: "Times the sessions that others have ended could not be read, or what is over not swept.",
	})
	for _, c := range []prometheus.Collector{m.attempts, m.sessions, m.lookErrors} {
		if err := reg.Register(c); err != nil {
			return m, err
		}
	}
	return m, nil
}

// count counts err by its code and returns it.
func (s *Service) count(action string, err error) error {
	result := "ok"
	if err != nil {
		result = string(protocol.CodeInternal)
		if e, ok := errors.AsType[*protocol.Error](err); ok {
			result = string(e.Code)
		}
	}
	s.metrics.attempts.WithLabelValues(action, result).Inc()
	return err
}
