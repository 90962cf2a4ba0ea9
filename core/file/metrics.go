package file

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	uploads, thumbnails *prometheus.CounterVec
	bytes, links        prometheus.Counter
	swept, sweepErrors  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := metrics{
		uploads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_file_uploads_total", Help: "Uploads by result: ok, or why they were refused.",
		}, []string{"result"}),
		thumbnails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "core_file_thumbnails_total", Help: "Pictures by what became of their thumbnail: made, large (would take too much memory) or broken (or kept the decoder too busy).",
		}, []string{"result"}),
		bytes:       counter("core_file_uploaded_bytes_total", "Bytes of files that came whole."),
		links:       counter("core_file_links_total", "Download links handed out."),
		swept:       counter("core_file_swept_total", "Files deleted because no message carried them."),
		sweepErrors: counter("core_file_sweep_errors_total", "Sweeps that ended early; the next one goes on."),
	}
	for _, r := range []string{"ok", "busy", "type", "too_large", "quota", "client", "unavailable", "internal"} {
		m.uploads.WithLabelValues(r)
	}
	for _, r := range []string{"made", "large", "broken"} {
		m.thumbnails.WithLabelValues(r)
	}
	for _, c := range []prometheus.Collector{m.uploads, m.thumbnails, m.bytes, m.links, m.swept, m.sweepErrors} {
		if err := reg.Register(c); err != nil {
			return m, fmt.Errorf("register file metrics: %w", err)
		}
	}
	return m, nil
}
