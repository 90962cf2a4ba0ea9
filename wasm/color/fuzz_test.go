package color

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/trace"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
)

func fuzzPolicy() Policy {
	p := benchPolicy()
	p.TrustedPeers = []string{"10.0.0.0/8"}
	p.Cohorts = append(p.Cohorts, Cohort{Name: "share", Match: Match{Percent: &Percent{Of: 50}}})
	p.Tenants = append(p.Tenants, Tenant{Header: "x-tenant"})
	return p
}

// FuzzAssign: whatever a client sends, the request leaves with headers that every
// reader of the W3C formats accepts, and with the group that they say.
func FuzzAssign(f *testing.F) {
	f.Add("a.example.com:80", "/v1?x", "env=canary", "canary", "00-"+traceID+"-"+spanID+"-01", "a=b,c=d", "k=v;p,l=w", `{"sub":"u","tenant":"t"}`, "acme", uint64(1), false)
	f.Add("search.x", "", ";;=", "", "00-zz", "A=b", "traffic.env=x", `{"tenant":"\u00e9"}`, "ACME", uint64(0), true)
	f.Add("[::1]:", "?", `env="`, "", "cc-"+traceID+"-"+spanID+"-01-", "tg=1,tg=2", "traffic%2eenv=1,a=%", `[]`, "", uint64(2), true)
	f.Add("", "", "", "", "00-"+traceID+"-"+spanID+"-01", "a=b", "traffic.env=e,traffic.tenant=t", "", "", uint64(2), true)
	a, err := Compile(fuzzPolicy())
	if err != nil {
		f.Fatal(err)
	}
	r := a.NewRequest()
	f.Fuzz(func(t *testing.T, host, path, cookie, env, parent, state, bag, claims, tenant string, seed uint64, trusted bool) {
		r.Reset()
		r.Peer = netip.Addr{}
		if trusted {
			r.Peer = netip.AddrFrom4([4]byte{10, 0, 0, 1})
		}
		for k, v := range map[string]string{
			":authority": host, ":path": path, "cookie": cookie, "x-env": env, "traceparent": parent, "tracestate": state,
			"baggage": bag, "x-traffic-claims": encode(claims), "x-tenant": tenant,
		} {
			r.Add(k, v)
		}
		as := a.Assign(r, &Random{5: byte(seed), 20: byte(seed >> 1)})
		if as.Group.Group.ID() != as.ID || !validName(as.Env) || !validName(as.Tenant) {
			t.Fatalf("group %+v has id %s", as.Group, as.ID)
		}
		checkTraceparent(t, as, parent)
		checkTracestate(t, as)
		checkBaggage(t, as, bag)
		if as.Events&Trusted != 0 != trusted {
			t.Errorf("trusted %v", !trusted)
		}
	})
}

func checkTraceparent(t *testing.T, as *Assignment, client string) {
	t.Helper()
	tp := as.Traceparent()
	if as.Kept&KeptTraceparent != 0 {
		if as.Events&Trusted == 0 {
			t.Error("an untrusted client's trace is kept")
		}
		tp = client
	}
	if _, ok := parseTraceparent(tp); !ok {
		t.Fatalf("traceparent %q", tp)
	}
	if c, ok := group.OfTrace(tp[3:35]); !ok || c != as.Color {
		t.Errorf("traceparent %q is not of color %s", tp, as.Color)
	}
}

func checkTracestate(t *testing.T, as *Assignment) {
	t.Helper()
	if as.Kept&KeptTracestate != 0 {
		return
	}
	ts, err := trace.ParseTraceState(as.Tracestate())
	if err != nil || len(as.Tracestate()) > maxStateBytes {
		t.Errorf("tracestate %q: %v", as.Tracestate(), err)
	}
	if as.Tracestate() != "" && ts.Get(semconv.TracestateKey) == "" {
		t.Errorf("tracestate %q has no client's ids", as.Tracestate())
	}
}

func checkBaggage(t *testing.T, as *Assignment, client string) {
	t.Helper()
	if as.Kept&KeptBaggage != 0 {
		if as.Events&Trusted == 0 {
			t.Error("an untrusted client's baggage is kept")
		}
		return // it may be malformed elsewhere
	}
	b, err := baggage.Parse(as.Baggage())
	if err != nil || len(as.Baggage()) > maxBaggageBytes {
		t.Fatalf("baggage %q: %v", as.Baggage(), err)
	}
	for _, m := range b.Members() {
		if strings.HasPrefix(m.Key(), semconv.BaggagePrefix) && m.Key() != semconv.Env && m.Key() != semconv.Tenant {
			t.Errorf("baggage %q has a member of ours", as.Baggage())
		}
	}
	if b.Member(semconv.Env).Value() != as.Env || b.Member(semconv.Tenant).Value() != as.Tenant {
		t.Errorf("baggage %q of %q does not say %s and %s", as.Baggage(), client, as.Env, as.Tenant)
	}
}

// FuzzClaim holds the scanner to encoding/json: of a valid object it reads what
// that reads, of anything else nothing.
func FuzzClaim(f *testing.F) {
	for _, s := range []string{
		`{"sub":"u","n":1.5e3,"b":true,"z":null,"l":["sub",{}],"o":{"sub":"x"}}`, `{}`, ` { "sub" : "a\"b\u00e9\ud83d" } `, `{"sub":"a","sub":"b"}`,
		`{"\u0073ub":"x"}`, `[]`, `"sub"`, `{"sub":}`, `{"sub":"a",}`, `{"sub" "a"}`, `{"sub":"a"}x`, "{\"sub\":\"\x00\"}", "{\"sub\":\"\xff\"}", `{"l":[}],"sub":"a"}`, `{"sub":01}`,
	} {
		f.Add(s, "sub")
	}
	f.Fuzz(func(t *testing.T, obj, name string) {
		got, ok := claim([]byte(obj), name)
		var want map[string]json.RawMessage
		if err := json.Unmarshal([]byte(obj), &want); err != nil || want == nil {
			// What the scanner skips without looking may be malformed: Envoy has parsed
			// the payload before it signed for it. It must not invent a value though.
			if ok && got != "" && !strings.Contains(obj, got) && !strings.Contains(obj, `\`) && strings.ToValidUTF8(obj, "") == obj {
				t.Errorf("%q of %q is %q", name, obj, got)
			}
			return
		}
		if !ok {
			t.Fatalf("%q is refused", obj)
		}
		if w := wanted(want[name]); got != w {
			t.Errorf("%q of %q is %q, want %q", name, obj, got, w)
		}
	})
}

func wanted(raw json.RawMessage) string {
	if len(raw) == 0 {
		return ""
	}
	switch raw[0] {
	case '"':
		var s string
		_ = json.Unmarshal(raw, &s)
		return s
	case '{', '[', 'n':
		return ""
	}
	return string(raw)
}

// FuzzLoad: no layout of a header map can do harm, and Load reads what Add is given.
func FuzzLoad(f *testing.F) {
	f.Add(pairs([][2]string{{":authority", "a"}, {"cookie", "b"}, {"cookie", "c"}, {"x", "y"}}))
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 1, 0, 0, 0, 1, 0, 0, 0, 'a', 0, 'b', 0})
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0})
	a, err := Compile(fuzzPolicy())
	if err != nil {
		f.Fatal(err)
	}
	r, other := a.NewRequest(), a.NewRequest()
	f.Fuzz(func(t *testing.T, raw []byte) {
		r.Load(raw)
		other.Reset()
		for slot, name := range a.layout.names {
			other.Add(name, r.get(slot))
		}
		for slot, name := range a.layout.names {
			if r.get(slot) != other.get(slot) {
				t.Errorf("%s is %q by Load and %q by Add", name, r.get(slot), other.get(slot))
			}
		}
		_ = a.Assign(r, &Random{})
	})
}

// FuzzCompile: no policy can do harm.
func FuzzCompile(f *testing.F) {
	seed, err := json.Marshal(fuzzPolicy())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(seed))
	f.Add(`{"cohorts":[{"name":"a","color":"0000cafe","match":{"not":{"all":[{"host":"*.x"},{"claim":{"name":"y"}}]}}}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		var p Policy
		if json.Unmarshal([]byte(s), &p) != nil {
			return
		}
		a, err := Compile(p)
		if (a == nil) == (err == nil) {
			t.Fatalf("%v, %v", a, err)
		}
		if err != nil {
			return
		}
		r := a.NewRequest()
		r.Load(pairs([][2]string{{":authority", "a.x"}, {"cookie", "b=c"}, {"x-env", "y"}}))
		if as := a.Assign(r, &Random{}); as.ID != as.Group.Group.ID() {
			t.Errorf("%+v", as.Group)
		}
	})
}
