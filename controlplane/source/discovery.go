package source

import (
	"context"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tracegate/tracegate/controlplane/policy"
)

// Discovery is the endpoints document with the names in it replaced by their addresses,
// which it asks for again and again.
//
// What it hands on is a document of addresses, with Raw as the text of that: to whoever
// receives, a name that answers otherwise is a file that was saved.
type Discovery struct {
	File File[policy.Endpoints]
	DNS  *DNS
}

// Run sends the first reading and one for every change of the file, of what its names
// stand for, or of which names are lost, until ctx is done.
func (d Discovery) Run(ctx context.Context, out chan<- Update[policy.Endpoints]) error {
	files := make(chan Update[policy.Endpoints])
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { ended <- d.File.Run(ctx, files) }()
	refresh := time.NewTicker(d.DNS.Refresh)
	defer refresh.Stop()

	var wanted Update[policy.Endpoints] // newest good reading of the file
	var sent string
	for {
		var u Update[policy.Endpoints]
		select {
		case u = <-files:
			if u.Err == nil {
				wanted = u
				u = d.resolved(ctx, wanted)
			}
			sent = "" // what is said of the file is always handed on
		case <-refresh.C:
			if wanted.Raw == nil || !wanted.Value.HasNames() {
				continue
			}
			u = d.resolved(ctx, wanted)
		case <-ctx.Done():
			return <-ended
		}
		text := u.text()
		if text == sent || ctx.Err() != nil {
			continue
		}
		sent = text
		select {
		case out <- u:
		case <-ctx.Done():
			return <-ended
		}
	}
}

// resolved is a reading with addresses for names.
func (d Discovery) resolved(ctx context.Context, u Update[policy.Endpoints]) Update[policy.Endpoints] {
	if !u.Value.HasNames() {
		return u
	}
	out := policy.Endpoints{Zones: u.Value.Zones}
	var err error
	if out.Services, err = d.resolveAll(ctx, u.Value.Services); err != nil {
		return Update[policy.Endpoints]{Err: err}
	}
	if out.Backup, err = d.resolveAll(ctx, u.Value.Backup); err != nil {
		return Update[policy.Endpoints]{Err: err}
	}
	raw, err := yaml.Marshal(out)
	if err != nil {
		return Update[policy.Endpoints]{Err: err}
	}
	return Update[policy.Endpoints]{Value: out, Raw: raw, Lost: d.DNS.Lost()}
}

func (d Discovery) resolveAll(ctx context.Context, services map[string]map[string][]string) (map[string]map[string][]string, error) {
	out := make(map[string]map[string][]string, len(services))
	for service, pools := range services {
		out[service] = map[string][]string{}
		for pool, endpoints := range pools {
			addrs, err := d.DNS.Resolve(ctx, endpoints)
			if err != nil {
				return nil, err
			}
			out[service][pool] = addrs
		}
	}
	return out, nil
}

// text is the same for updates that say the same.
func (u Update[T]) text() string {
	s := string(u.Raw)
	for _, l := range u.Lost {
		s += "\x00" + l
	}
	if u.Err != nil {
		s += "\x01" + u.Err.Error()
	}
	return s
}
