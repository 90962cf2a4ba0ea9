package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// Endpoints is endpoints.yaml: service -> pool -> its instances, each an IP address and
// port, dns://host:port for all addresses of a name, or srv://_service._proto.name for
// all targets of SRV records. Names are for controlplane/source to look up.
type Endpoints struct {
	Services map[string]map[string][]string `yaml:"services"`

	// Backup are instances elsewhere, in another cluster for example: they serve where
	// none of the same pool's own does.
	Backup map[string]map[string][]string `yaml:"backup,omitempty"`

	// Zones says where instances are: zone -> CIDRs and single addresses. The narrowest that
	// an instance is in counts; one that is in none has no zone.
	Zones map[string][]string `yaml:"zones,omitempty"`

	// Draining are instances that get no new requests, as Services is keyed. The control
	// plane writes it, operators do not: they order it.
	Draining map[string]map[string][]string `yaml:"-"`
}

const (
	maxZones   = 64
	maxInAZone = 10_000
)

// zoneName is what Kubernetes allows as the value of a label.
var zoneName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)

func (d *document) checkZone(path, got string) {
	if !zoneName.MatchString(got) {
		d.invalid(path, "%q is not 1 to 63 letters, digits and inner hyphens, dots and underscores", clip(got))
	}
}

// ZoneOf returns a function that says which zone an instance (IP address and port) is in;
// empty: in none. It is nil where there are no zones.
func (e Endpoints) ZoneOf() func(instance string) string {
	if len(e.Zones) == 0 {
		return nil
	}
	type place struct {
		prefix netip.Prefix
		zone   string
	}
	var places []place
	for zone, list := range e.Zones {
		for _, text := range list {
			if p, err := prefixOf(text); err == nil { // all are, ParseEndpoints has seen to it
				places = append(places, place{p, zone})
			}
		}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(b.prefix.Bits(), a.prefix.Bits()) })
	return func(instance string) string {
		ap, err := netip.ParseAddrPort(instance)
		if err != nil {
			return ""
		}
		for _, p := range places {
			if p.prefix.Contains(ap.Addr().Unmap()) {
				return p.zone
			}
		}
		return ""
	}
}

// prefixOf takes a single address for the prefix of all its bits.
func prefixOf(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

func (d *document) checkZones(zones map[string][]string) {
	if len(zones) > maxZones {
		d.invalid("zones", "%d zones, more than %d", len(zones), maxZones)
		return
	}
	taken := map[netip.Prefix]string{}
	for _, zone := range slices.Sorted(maps.Keys(zones)) {
		path := join("zones", zone)
		d.checkZone(path, zone)
		if len(zones[zone]) > maxInAZone {
			d.invalid(path, "%d entries, more than %d", len(zones[zone]), maxInAZone)
			continue
		}
		for i, text := range zones[zone] {
			p, err := prefixOf(text)
			switch {
			case err != nil:
				d.invalid(index(path, i), "%q is neither a CIDR nor an IP address", clip(text))
			case taken[p] != "" && taken[p] != zone:
				d.invalid(index(path, i), "%q is in zone %q too", clip(text), taken[p])
			}
			taken[p] = zone
		}
	}
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
		return Endpoints{}, d.Err()
	}
	d.Parse(data, &e)
	if d.Good() {
		d.checkEndpoints(e)
	}
	if err := d.Err(); err != nil {
		return Endpoints{}, err
	}
	return e, nil
}

func (d *document) checkEndpoints(e Endpoints) {
	d.checkZones(e.Zones)
	if d.countEndpoints("services", e.Services)+d.countEndpoints("backup", e.Backup) == 0 {
		d.invalid("services", "no endpoint at all: an empty list never replaces a working one")
	}
}

// countEndpoints checks them, too.
func (d *document) countEndpoints(key string, services map[string]map[string][]string) (total int) {
	for service, pools := range services {
		for pool, addrs := range pools {
			path := join(join(key, service), pool)
			if len(addrs) > maxEndpoints {
				d.invalid(path, "%d endpoints, more than %d", len(addrs), maxEndpoints)
				continue
			}
			total += len(addrs)
			d.checkAddresses(path, addrs)
		}
	}
	return total
}

var (
	hostEndpoint = regexp.MustCompile(`^dns://[A-Za-z0-9_]([A-Za-z0-9_.-]{0,250}[A-Za-z0-9.])?:[1-9][0-9]{0,4}$`)
	srvEndpoint  = regexp.MustCompile(`^srv://_[A-Za-z0-9-]{1,62}\._[A-Za-z0-9-]{1,62}\.[A-Za-z0-9_.-]{1,200}$`)
)

// endpointName says whether an endpoint is a name, and what it must look like then.
func endpointName(endpoint string) (form *regexp.Regexp, ok bool) {
	switch {
	case strings.HasPrefix(endpoint, "dns://"):
		return hostEndpoint, true
	case strings.HasPrefix(endpoint, "srv://"):
		return srvEndpoint, true
	}
	return nil, false
}

// HasNames says whether an endpoint is a name.
func (e Endpoints) HasNames() bool {
	for _, services := range []map[string]map[string][]string{e.Services, e.Backup} {
		for _, pools := range services {
			for _, endpoints := range pools {
				if slices.ContainsFunc(endpoints, func(endpoint string) bool { _, ok := endpointName(endpoint); return ok }) {
					return true
				}
			}
		}
	}
	return false
}

func (d *document) checkAddresses(path string, addrs []string) {
	seen := map[netip.AddrPort]bool{}
	for i, a := range addrs {
		if name, ok := endpointName(a); ok {
			if !name.MatchString(a) {
				d.invalid(index(path, i), "%q is not dns://host:port or srv://_service._proto.name", clip(a))
			}
			continue
		}
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
