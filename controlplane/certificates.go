package controlplane

import (
	"cmp"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/tracegate/tracegate/controlplane/certificate"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/plan"
	"github.com/tracegate/tracegate/controlplane/policy"
	"github.com/tracegate/tracegate/controlplane/source"
)

// certificates are the certificates folder as it was last good. The loop owns it.
type certificates struct {
	dir     string
	metrics *metrics
	log     *slog.Logger

	good   map[string]certificate.Pair // replaced, never edited: plans share it
	errs   map[string]string           // why a folder is not what is in use
	loaded map[string]time.Time
}

func newCertificates(dir string, m *metrics, log *slog.Logger) *certificates {
	return &certificates{dir: dir, metrics: m, log: log, good: map[string]certificate.Pair{}, errs: map[string]string{}, loaded: map[string]time.Time{}}
}

// read takes what is good over. What is not, or is gone, leaves the last good one.
func (c *certificates) read(updates []source.CertificateUpdate) {
	good := make(map[string]certificate.Pair, len(c.good)+len(updates))
	for name, p := range c.good {
		good[name] = p
	}
	for _, u := range updates {
		_, had := good[u.Name]
		switch {
		case u.Err != nil:
			c.errs[u.Name] = u.Err.Error()
			c.log.Warn("certificate cannot be used", "certificate", u.Name, "error", u.Err, "the one before goes on", had)
		case !u.Pair.HasKey() && u.Pair.CA == "":
			c.errs[u.Name] = "its folder is gone"
			c.log.Warn("folder of a certificate is gone", "certificate", u.Name, "the one before goes on", had)
		default:
			good[u.Name], c.loaded[u.Name] = u.Pair, time.Now()
			delete(c.errs, u.Name)
			if u.Pair.HasKey() {
				c.metrics.expires.WithLabelValues(u.Name).Set(float64(u.Pair.Expires.Unix()))
			}
			c.log.Info("certificate read", "certificate", u.Name, "expires", u.Pair.Expires)
		}
	}
	c.good = good
}

// with is the edge with the certificates of the folder.
func (c *certificates) with(e plan.Edge) plan.Edge {
	e.Certificates = c.good
	return e
}

// show adds what the policy names to the sources of a status.
func (c *certificates) show(t policy.TLS, sources map[string]ctlapi.Source) {
	for _, want := range t.Shown() {
		pair, ok := c.good[want.Name]
		s := ctlapi.Source{File: filepath.Join(c.dir, want.Name), Loaded: c.loaded[want.Name], Expires: pair.Expires, Error: c.errs[want.Name]}
		switch {
		case !ok || !pair.HasKey():
			s.Error = cmp.Or(s.Error, "no "+certificate.ChainFile+" and "+certificate.KeyFile+" in its folder")
		case s.Error == "":
			for _, host := range want.Hosts {
				if err := pair.Covers(host); err != nil {
					s.Error = err.Error()
				}
			}
		}
		sources["certificate "+want.Name] = s
	}
}
