package account

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/protocol"
)

type metrics struct {
	attempts *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	m := metrics{attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "core_account_attempts_total",
		Help: "Registrations and logins by result: ok or the code of the error.",
	}, []string{"action", "result"})}
	return m, reg.Register(m.attempts)
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
