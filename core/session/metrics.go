package session

import (
	"strconv"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tracegate/tracegate/core/protocol"
)

type metrics struct {
	opened, pushed, dropped, replayed, storeErrors, groupsDropped, signalsDropped prometheus.Counter
	closed, refused, commands, sendErrors, catchUps, resumes, moves               *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, h *Hub) (metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	vec := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		return v
	}
	m := metrics{
		opened:         counter("core_sockets_opened_total", "Connections opened."),
		pushed:         counter("core_messages_pushed_total", "Messages queued to connections as they came."),
		dropped:        counter("core_pushes_dropped_total", "Pushes that a connection had already."),
		replayed:       counter("core_messages_replayed_total", "Messages queued to connections from the store."),
		storeErrors:    counter("core_session_store_errors_total", "Reads of the store that failed and are tried again."),
		groupsDropped:  counter("core_group_pushes_dropped_total", "Pushes to groups dropped because too many waited; the tick finds what they would have told."),
		signalsDropped: counter("core_signals_dropped_total", "Receipts and typing not pushed to a connection that was busy or not live."),
		closed: vec("core_sockets_closed_total", "Connections closed, by reason.", "reason",
			"client", "lost", "too_large", "write", closeLabel(protocol.CloseShutdown), closeLabel(protocol.CloseSlow), closeLabel(protocol.CloseMoved),
			closeLabel(protocol.CloseStale), closeLabel(protocol.CloseExpired), closeLabel(protocol.CloseProtocol), closeLabel(websocket.CloseInvalidFramePayloadData),
			closeLabel(websocket.CloseInternalServerErr)),
		refused: vec("core_sockets_refused_total", "Connections refused, by reason.", "reason",
			"origin", "handshake", "draining", "full", "user", "user_elsewhere", "rate"),
		commands:   vec("core_commands_total", "Commands by kind; limited ones were refused for their rate.", "command", "send", "edit", "recall", "react", "unreact", "mark", "typing", "resume", "ping", "limited"),
		sendErrors: vec("core_send_errors_total", "Sends over WebSocket that were answered with an error, by its code.", "code"),
		catchUps:   vec("core_catch_ups_total", "Reads of missed messages from the store, by cause.", "cause", "resume", "gap", "hint", "tick"),
		resumes:    vec("core_resumes_total", "Resumes answered, by whether all was recovered.", "recovered", "true", "false"),
		moves:      vec("core_moves_asked_total", "Connections asked to reconnect, by reason.", "reason", "placement", "shutdown", "edge", "drain"),
	}
	sockets := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "core_sockets", Help: "Connections open."},
		func() float64 { return float64(h.Sockets()) })
	for _, c := range []prometheus.Collector{
		m.opened, m.pushed, m.dropped, m.replayed, m.storeErrors, m.groupsDropped, m.signalsDropped, m.closed, m.refused, m.commands, m.sendErrors, m.catchUps, m.resumes, m.moves, sockets,
	} {
		if err := reg.Register(c); err != nil {
			return m, err
		}
	}
	return m, nil
}

// closeLabel names a close code in a metric.
func closeLabel(code int) string { label, _ := closing(code); return label }

// closeReason says the same to a person who looks at a connection.
func closeReason(code int) string { _, reason := closing(code); return reason }

func closing(code int) (label, reason string) {
	switch code {
	case protocol.CloseShutdown:
		return "shutdown", "shutdown"
	case protocol.CloseSlow:
		return "slow", "too slow"
	case protocol.CloseMoved:
		return "moved", "moved"
	case protocol.CloseStale:
		return "stale", "no sign of life"
	case protocol.CloseExpired:
		return "expired", "session has ended"
	case protocol.CloseProtocol:
		return "protocol", "not the protocol"
	case websocket.CloseInvalidFramePayloadData:
		return "not_utf8", "not UTF-8"
	case websocket.CloseInternalServerErr:
		return "internal", "internal error"
	default: // the client's own, or gorilla's
		return strconv.Itoa(code), ""
	}
}
