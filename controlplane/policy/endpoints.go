package policy

import (
	"net/netip"
)

// Endpoints is endpoints.yaml: service -> pool -> addresses of its instances.
type Endpoints struct {
	Services map[string]map[string][]string `yaml:"services"`
}

// maxEndpoints bounds one pool.
const maxEndpoints = 1000

// ParseEndpoints reads an endpoints document. Its error is an [*Error].
func ParseEndpoints(data []byte) (Endpoints, error) {
	var (
		e Endpoints
		d document
	)
	if len(data) > MaxSize {
		d.fail("", 0, "document has %d bytes, more than %d", len(data), MaxSize)
		return Endpoints{}, d.err()
	}
	d.parse(data, &e)
	if len(d.problems) == 0 {
		d.checkEndpoints(e)
	}
	if err := d.err(); err != nil {
		return Endpoints{}, err
	}
	return e, nil
}

func (d *document) checkEndpoints(e Endpoints) {
	total := 0
	for service, pools := range e.Services {
		for pool, addrs := range pools {
			path := join(join("services", service), pool)
			if len(addrs) > maxEndpoints {
				d.invalid(path, "%d endpoints, more than %d", len(addrs), maxEndpoints)
				continue
			}
			total += len(addrs)
			d.checkAddresses(path, addrs)
		}
	}
	if total == 0 {
		d.invalid("services", "no endpoint at all: an empty list never replaces a working one")
	}
}

func (d *document) checkAddresses(path string, addrs []string) {
	seen := map[netip.AddrPort]bool{}
	for i, a := range addrs {
		ap, err := netip.ParseAddrPort(a)
		switch {
		case err != nil || ap.Port() == 0:
			d.invalid(index(path, i), "%q is not an IP address and port", clip(a))
		case seen[ap]:
			d.invalid(index(path, i), "%q appears twice", clip(a))
		}
		seen[ap] = true
	}
}
