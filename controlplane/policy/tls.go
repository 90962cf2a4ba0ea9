package policy

import (
	"slices"
	"time"
)

// TLS is what clients' encrypted connections get. Where the edge listens for them is
// no policy (edge.tls.listen of the process).
type TLS struct {
	// Certificates are tried by the name a client asks for (SNI). None: one called
	// "default", for everyone.
	Certificates []Certificate `yaml:"certificates,omitempty"`
	MinVersion   string        `yaml:"minVersion,omitempty"` // "1.2" where empty, or "1.3"
	HSTS         *HSTS         `yaml:"hsts,omitempty"`
}

// Certificate names a folder of the certificates folder, with tls.crt and tls.key. The
// files are read again when they change; keys are never part of a policy.
type Certificate struct {
	Name string `yaml:"name"`
	// Hosts are exact or *.suffix. A certificate without hosts is shown to everyone that
	// no other is for; at most one has none.
	Hosts []string `yaml:"hosts,omitempty"`
}

// HSTS tells browsers to come by TLS only (RFC 6797).
type HSTS struct {
	MaxAge            time.Duration `yaml:"maxAge"`
	IncludeSubdomains bool          `yaml:"includeSubdomains,omitempty"`
	Preload           bool          `yaml:"preload,omitempty"`
}

// DefaultCertificate is the name of the one that is used where a policy names none.
const DefaultCertificate = "default"

// maxCertificates bounds filter chains of the TLS listener: each is a set of filters.
const maxCertificates = 128

// Shown are the certificates, also where the policy leaves them to the default.
func (t TLS) Shown() []Certificate {
	if len(t.Certificates) == 0 {
		return []Certificate{{Name: DefaultCertificate}}
	}
	return t.Certificates
}

func (d *document) checkTLS(t TLS) {
	if n := len(t.Certificates); n > maxCertificates {
		d.invalid("tls.certificates", "%d certificates, more than %d", n, maxCertificates)
		return
	}
	d.checkCertificates(t.Certificates)
	if !slices.Contains([]string{"", "1.2", "1.3"}, t.MinVersion) {
		d.invalid("tls.minVersion", `%q is neither "1.2" nor "1.3"`, clip(t.MinVersion))
	}
	if h := t.HSTS; h != nil {
		if h.MaxAge < 0 || h.MaxAge > 10*365*24*time.Hour {
			d.invalid("tls.hsts.maxAge", "%v is not between 0 and ten years", h.MaxAge)
		}
		if h.Preload && (!h.IncludeSubdomains || h.MaxAge < 365*24*time.Hour) {
			d.invalid("tls.hsts.preload", "browsers' lists want includeSubdomains and a maxAge of a year (8760h)")
		}
	}
}

func (d *document) checkCertificates(certificates []Certificate) {
	names, hosts, fallback := map[string]bool{}, map[string]string{}, ""
	for i, c := range certificates {
		path := index("tls.certificates", i)
		d.checkName(path+".name", c.Name)
		if names[c.Name] {
			d.invalid(path+".name", "certificate %q appears twice", clip(c.Name))
		}
		names[c.Name] = true
		if len(c.Hosts) == 0 {
			if fallback != "" {
				d.invalid(path, "no hosts: %q is for everyone already", clip(fallback))
			}
			fallback = c.Name
		}
		for j, h := range d.bounded(path+".hosts", c.Hosts) {
			at := index(path+".hosts", j)
			d.checkHost(at, h)
			if other, ok := hosts[h]; ok {
				d.invalid(at, "%q has certificate %q already", clip(h), clip(other))
			}
			hosts[h] = c.Name
		}
	}
}
