package server

import "github.com/prometheus/client_golang/prometheus"

// metrics are all instruments of the package. The edge label is a node id, bounded
// in length and, by Config.MaxEdges, in number.
type metrics struct {
	pushed  *prometheus.CounterVec
	acks    *prometheus.CounterVec
	nacks   *prometheus.CounterVec
	refused *prometheus.CounterVec
	edges   prometheus.Gauge

	clients     prometheus.Gauge
	clientNacks *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		pushed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_xds_responses_total", Help: "Responses sent to edges.",
		}, []string{"type"}),
		acks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_xds_acks_total", Help: "Responses acknowledged by an edge.",
		}, []string{"edge", "type"}),
		nacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_xds_nacks_total", Help: "Responses rejected by an edge.",
		}, []string{"edge", "type"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_xds_streams_refused_total", Help: "Streams refused, by reason.",
		}, []string{"reason"}),
		edges: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tracegate_xds_edges", Help: "Edges connected.",
		}),
		clients: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tracegate_xds_clients", Help: "gRPC clients connected.",
		}),
		clientNacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tracegate_xds_client_nacks_total", Help: "Responses rejected by a gRPC client.",
		}, []string{"type"}),
	}
	reg.MustRegister(m.pushed, m.acks, m.nacks, m.refused, m.edges, m.clients, m.clientNacks)
	return m
}

// forget drops the series of an edge that went long ago.
func (m *metrics) forget(edge string) {
	m.acks.DeletePartialMatch(prometheus.Labels{"edge": edge})
	m.nacks.DeletePartialMatch(prometheus.Labels{"edge": edge})
}
