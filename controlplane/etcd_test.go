package controlplane

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/server/servertest"
	"github.com/tracegate/tracegate/controlplane/source/etcdtest"
)

// TestPolicyFromEtcd: a real etcd has the policy; each version is a revision with its
// author, a bad one is shown with its line, and an operator's goes there too.
func TestPolicyFromEtcd(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	client := server.Client()
	put := func(key, document string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if _, err := client.Put(ctx, key, document); err != nil {
			t.Fatal(err)
		}
	}
	put("/config/app.yaml", "# author: ann\n# reason: the first\n"+string(renamed("everyone")))

	cfg := testConfig(t)
	cfg.Policy = cfg.Policy + ".not-there"
	cfg.Etcd.Endpoints, cfg.Etcd.Labels = []string{server.Endpoint}, []string{"env=staging"}
	p := run(t, cfg, newWorld())
	servertest.Connect(t, p.xds, servertest.Options{})
	inForce := func(by, reason string) {
		t.Helper()
		p.newest("by "+by, func(r ctlapi.Revision) bool {
			return r.State == ctlapi.RevisionInForce && r.By == by && r.Reason == reason
		})
	}
	inForce("etcd:ann", "the first")
	put("/config/app/gray/env=staging", "# author: bob\nservices: []\n")
	p.newest("a bad one", func(r ctlapi.Revision) bool {
		return r.State == ctlapi.RevisionInvalid && r.By == "etcd:bob" && strings.HasPrefix(r.Why, "etcd:/config/app.yaml:2: services")
	})
	put("/config/app/gray/env=staging", string(renamed("staging")))
	inForce("etcd:/config/app/gray/env=staging", "")
	if _, err := client.Delete(t.Context(), "/config/app/gray/env=staging"); err != nil {
		t.Fatal(err)
	}
	inForce("etcd:ann", "the first")
	if err := p.api.PutPolicy(t.Context(), renamed("operator"), "carl", "by hand"); err != nil {
		t.Fatal(err)
	}
	inForce("operator:carl", "by hand")
	got, err := client.Get(t.Context(), "/config/app.yaml")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != string(renamed("operator")) {
		t.Errorf("etcd has %v, %v", got, err)
	}
}
