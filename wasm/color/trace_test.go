package color

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/mesh/group"
)

func encode(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	spanID  = "b7ad6b7169203331"
)

func TestParseTraceparent(t *testing.T) {
	for s, flags := range map[string]byte{
		"00-" + traceID + "-" + spanID + "-00":     0,
		"00-" + traceID + "-" + spanID + "-01":     1,
		"00-" + traceID + "-" + spanID + "-ff":     0xff,
		"01-" + traceID + "-" + spanID + "-01":     1,
		"cc-" + traceID + "-" + spanID + "-01-x-y": 1, // a future version may be longer
		"fe-" + traceID + "-" + spanID + "-02-":    2,
	} {
		if got, ok := parseTraceparent(s); !ok || got != flags {
			t.Errorf("%q: %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{
		"", "00", "00-" + traceID + "-" + spanID + "-0",
		"00-" + traceID + "-" + spanID + "-01-x", // version 00 has a length
		"ff-" + traceID + "-" + spanID + "-01",
		"cc-" + traceID + "-" + spanID + "-01x",
		"00-" + strings.Repeat("0", 32) + "-" + spanID + "-01",
		"00-" + traceID + "-" + strings.Repeat("0", 16) + "-01",
		"00-" + strings.ToUpper(traceID) + "-" + spanID + "-01",
		"0G-" + traceID + "-" + spanID + "-01",
		"00-" + traceID + "-" + spanID + "-0g",
		"00_" + traceID + "-" + spanID + "-01",
		"00-" + traceID + "_" + spanID + "-01",
		"00-" + traceID + "-" + spanID + "_01",
		" 00-" + traceID + "-" + spanID + "-01",
		"00-" + traceID + "-" + spanID + "-01,00-" + traceID + "-" + spanID + "-01", // sent twice
	} {
		if _, ok := parseTraceparent(s); ok {
			t.Errorf("%q is accepted", s)
		}
	}
}

func TestTraceOfAnUntrustedClient(t *testing.T) {
	tests := map[string]struct {
		h          headers
		flags      string
		tracestate string // "" for none
		events     Events
	}{
		"none":                   {headers{}, "03", "", 0},
		"sampled":                {headers{"traceparent": "00-" + traceID + "-" + spanID + "-01"}, "03", "tg=" + traceID + "-" + spanID, 0},
		"not sampled":            {headers{"traceparent": "00-" + traceID + "-" + spanID + "-00"}, "02", "tg=" + traceID + "-" + spanID, 0},
		"flags to come":          {headers{"traceparent": "00-" + traceID + "-" + spanID + "-fc"}, "02", "tg=" + traceID + "-" + spanID, 0},
		"with a list":            {headers{"traceparent": "00-" + traceID + "-" + spanID + "-01", "tracestate": "a=1 , b@c=2,,"}, "03", "tg=" + traceID + "-" + spanID + ",a=1,b@c=2", 0},
		"with our own member":    {headers{"traceparent": "00-" + traceID + "-" + spanID + "-01", "tracestate": "a=1,tg=forged,b=2"}, "03", "tg=" + traceID + "-" + spanID + ",a=1,b=2", 0},
		"with a key like ours":   {headers{"traceparent": "00-" + traceID + "-" + spanID + "-01", "tracestate": "tgx=1"}, "03", "tg=" + traceID + "-" + spanID + ",tgx=1", 0},
		"with a malformed list":  {headers{"traceparent": "00-" + traceID + "-" + spanID + "-01", "tracestate": "a=1,B=2"}, "03", "tg=" + traceID + "-" + spanID, TracestateCut},
		"with a key twice":       {headers{"traceparent": "00-" + traceID + "-" + spanID + "-01", "tracestate": "a=1,a=2"}, "03", "tg=" + traceID + "-" + spanID, TracestateCut},
		"a list and no trace":    {headers{"tracestate": "a=1"}, "03", "", 0},
		"a list and a bad trace": {headers{"traceparent": "00-x", "tracestate": "a=1"}, "03", "", MalformedTraceparent},
	}
	policy := Policy{Cohorts: []Cohort{{Name: "all", Match: Match{Not: &Match{Path: "/none"}}}}}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := assign(t, policy, tt.h)
			want := "00-" + group.ColorOf("all").String() + "0102030405060708090a0b0c-0102030405060708-" + tt.flags
			if got.Traceparent() != want {
				t.Errorf("traceparent %s, want %s", got.Traceparent(), want)
			}
			if got.Tracestate() != tt.tracestate || got.Events != tt.events {
				t.Errorf("tracestate %q, events %b; want %q, %b", got.Tracestate(), got.Events, tt.tracestate, tt.events)
			}
			if kept, had := got.Kept&KeptTracestate != 0, tt.h["tracestate"] != ""; kept != (tt.tracestate == "" && !had) {
				t.Errorf("tracestate kept: %v", kept)
			}
		})
	}
}

func TestIDsAreNeverZero(t *testing.T) {
	var out [traceparentSize]byte
	writeTraceparent(&out, group.Baseline, &Random{}, flagRandom)
	if _, ok := parseTraceparent(string(out[:])); !ok {
		t.Errorf("%s", out)
	}
	writeTraceparent(&out, group.Baseline, &Random{1, 1, 1, 1}, flagRandom) // these four are not used
	if _, ok := parseTraceparent(string(out[:])); !ok {
		t.Errorf("%s", out)
	}
}

func TestTracestateIsBounded(t *testing.T) {
	own := "tg=" + traceID + "-" + spanID
	list := func(n, size int) string {
		var members []string
		for i := range n {
			key := fmt.Sprintf("k%d=", i)
			members = append(members, key+strings.Repeat("v", size-len(key)))
		}
		return strings.Join(members, ",")
	}
	tests := map[string]struct {
		list   string
		want   string
		events Events
	}{
		"as much as fits":             {list(31, 10), own + "," + list(31, 10), 0},
		"one too many":                {list(32, 10), own + "," + list(31, 10), TracestateCut},
		"far too many":                {list(33, 10), own, TracestateCut},
		"too long":                    {list(10, 60), own + "," + list(7, 60), TracestateCut},
		"a big one first":             {"big=" + strings.Repeat("v", 200) + "," + list(6, 60), own + "," + list(6, 60), TracestateCut},
		"a big one with enough room":  {"big=" + strings.Repeat("v", 200), own + ",big=" + strings.Repeat("v", 200), 0},
		"a value that is far too big": {"big=" + strings.Repeat("v", 300), own, TracestateCut},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := assign(t, Policy{}, headers{"traceparent": "00-" + traceID + "-" + spanID + "-01", "tracestate": tt.list})
			if got.Tracestate() != tt.want || got.Events != tt.events {
				t.Errorf("events %b, tracestate\n%s\nwant\n%s", got.Events, got.Tracestate(), tt.want)
			}
		})
	}
}

func TestBaggage(t *testing.T) {
	const own = "traffic.env=default,traffic.tenant=default"
	many := strings.Repeat("k=v,", 61) + "k=v"
	tests := map[string]struct {
		client string
		want   string
		cut    bool
	}{
		"none":                      {"", own, false},
		"foreign members":           {"a=b, c = d ;p=1 ; q", own + ",a=b,c = d ;p=1 ; q", false},
		"empty members":             {",, ,a=b,", own + ",a=b", false},
		"values":                    {"a=,b=x=y,c=%C3%A9", own + ",a=,b=x=y,c=%C3%A9", false},
		"our own":                   {"traffic.env=x,a=b,traffic.tenant=y,traffic.other=z", own + ",a=b", true},
		"our own in capitals":       {"Traffic.Env=x", own, true},
		"our own with spaces":       {" traffic.env = x", own, true},
		"our own percent-encoded":   {"traffic%2Eenv=x", own, true},
		"a key like ours":           {"traffic=x,trafficking=y", own + ",traffic=x,trafficking=y", false},
		"malformed members":         {`a,=b,c d=e,f="g",h=\i,j=k`, own + ",j=k", true},
		"malformed escapes":         {"a=%,b=%1,c=%zz,d=%41", own + ",d=%41", true},
		"malformed properties":      {"a=b;,c=d;=e,f=g;h i,j=k;l=m", own + ",j=k;l=m", true},
		"no ASCII":                  {"a=é,é=a,b=c", own + ",b=c", true},
		"as many as may be":         {many, own + "," + many, false},
		"one too many":              {many + ",k=v", own + "," + many, true},
		"as much as may be":         {"k=" + strings.Repeat("v", maxBaggageBytes-len(own)-3), own + ",k=" + strings.Repeat("v", maxBaggageBytes-len(own)-3), false},
		"one byte too much":         {"k=" + strings.Repeat("v", maxBaggageBytes-len(own)-2) + ",a=b", own + ",a=b", true},
		"what a client may not end": {"a=b;", own, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := assign(t, Policy{}, headers{"baggage": tt.client})
			if got.Baggage() != tt.want {
				t.Errorf("baggage\n%s\nwant\n%s", got.Baggage(), tt.want)
			}
			if cut := got.Events&BaggageCut != 0; cut != tt.cut {
				t.Errorf("cut %v, want %v", cut, tt.cut)
			}
		})
	}
}

func TestTrustedPeers(t *testing.T) {
	policy := Policy{
		Env: "prod", Tenant: "public", TrustedPeers: []string{"10.1.2.3/8", "::1/128"},
		Cohorts: []Cohort{{Name: "canary", Env: "canary", Match: Match{Path: "/canary"}}},
	}
	a, err := Compile(policy)
	if err != nil {
		t.Fatal(err)
	}
	if !a.ReadsPeer() {
		t.Error("the peer is not asked for")
	}
	canary := group.ColorOf("canary")
	parent := func(c group.Color) string { return "00-" + c.String() + traceID[8:] + "-" + spanID + "-00" }
	tests := map[string]struct {
		peer string
		h    headers
		want group.Group
		name string
		kept Kept
	}{
		"a trace of a cohort": {"10.9.9.9", headers{"traceparent": parent(canary), "tracestate": "a=b", "baggage": "k=v,traffic.env=e,traffic.tenant=t"},
			group.Group{Color: canary, Env: "e", Tenant: "t"}, "canary", KeptTraceparent | KeptTracestate | KeptBaggage},
		"without baggage": {"::1", headers{"traceparent": parent(canary)},
			group.Group{Color: canary, Env: "canary", Tenant: "public"}, "canary", KeptTraceparent | KeptTracestate},
		"mapped to IPv6": {"::ffff:10.0.0.1", headers{"traceparent": parent(canary)},
			group.Group{Color: canary, Env: "canary", Tenant: "public"}, "canary", KeptTraceparent | KeptTracestate},
		"a color of elsewhere": {"10.9.9.9", headers{"traceparent": parent(0xcafe), ":path": "/canary"},
			group.Group{Color: 0xcafe, Env: "prod", Tenant: "public"}, "", KeptTraceparent | KeptTracestate},
		"baseline": {"10.9.9.9", headers{"traceparent": parent(0), ":path": "/canary"},
			group.Group{Env: "prod", Tenant: "public"}, "", KeptTraceparent | KeptTracestate},
		"no trace": {"10.9.9.9", headers{":path": "/canary", "baggage": "traffic.env=e,traffic.tenant=t"},
			group.Group{Color: canary, Env: "e", Tenant: "t"}, "canary", KeptTracestate | KeptBaggage},
		"impossible names": {"10.9.9.9", headers{"traceparent": parent(canary), "baggage": "traffic.env=E,traffic.tenant=T"},
			group.Group{Color: canary, Env: "canary", Tenant: "public"}, "canary", KeptTraceparent | KeptTracestate},
		"another peer": {"11.0.0.1", headers{"traceparent": parent(canary), "baggage": "traffic.env=e,traffic.tenant=t"},
			group.Group{Env: "prod", Tenant: "public"}, "", 0},
		"no peer": {"", headers{"traceparent": parent(canary)},
			group.Group{Env: "prod", Tenant: "public"}, "", 0},
	}
	r := a.NewRequest()
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r.Reset()
			r.Peer = netip.Addr{}
			if tt.peer != "" {
				r.Peer = netip.MustParseAddr(tt.peer)
			}
			for k, v := range tt.h {
				r.Add(k, v)
			}
			got := a.Assign(r, &Random{1, 2, 3, 4, 5})
			if got.Group.Group != tt.want || got.ID != tt.want.ID() || got.Cohort != tt.name || got.Kept != tt.kept {
				t.Errorf("group %+v (%s), cohort %q, kept %b; want %+v (%s), %q, %b",
					got.Group.Group, got.ID, got.Cohort, got.Kept, tt.want, tt.want.ID(), tt.name, tt.kept)
			}
			if wantTrusted := tt.peer != "" && tt.peer != "11.0.0.1"; got.Events&Trusted != 0 != wantTrusted {
				t.Errorf("trusted %v", !wantTrusted)
			}
		})
	}
}

// Each byte in each place, and each byte's digits: the words against the plain way.
func TestHexWords(t *testing.T) {
	for i := range 8 {
		for b := range 256 {
			s := []byte("0189afce")
			s[i] = byte(b)
			want := strings.Trim(string(s), "0123456789abcdef") == ""
			if got := lowerHex(word(string(s), 0)) == highs; got != want {
				t.Errorf("lowerHex(%q) = %v", s, got)
			}
		}
	}
	for b := range 256 {
		v := [4]byte{byte(b), byte(b + 1), byte(b + 85), byte(b + 170)}
		got := binary.LittleEndian.AppendUint64(nil, hexText(binary.LittleEndian.Uint32(v[:])))
		if want := fmt.Sprintf("%x", v); string(got) != want {
			t.Errorf("hexText(%x) = %s", v, got)
		}
	}
}
