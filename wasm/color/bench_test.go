package color

import (
	"encoding/binary"
	"testing"
)

func benchPolicy() Policy {
	return Policy{
		Env: "prod", Tenant: "public",
		Cohorts: []Cohort{{Name: "canary", Env: "canary", Match: Match{Any: []Match{
			{Header: &Value{Name: "x-env", Exact: "canary"}},
			{Cookie: &Value{Name: "env", Exact: "canary"}},
		}}}},
		Tenants: []Tenant{
			{Name: "search", Match: &Match{Host: "search.*"}},
			{Name: "payment", Match: &Match{Host: "payment.*"}},
			{Claim: "tenant"},
		},
	}
}

func BenchmarkAssign(b *testing.B) {
	a, err := Compile(benchPolicy())
	if err != nil {
		b.Fatal(err)
	}
	r := a.NewRequest()
	raw := pairs([][2]string{
		{":authority", "search.example.com"}, {":path", "/v1/me"}, {":method", "GET"}, {":scheme", "http"},
		{"user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"},
		{"accept", "application/json"}, {"accept-language", "en-US,en;q=0.9"}, {"accept-encoding", "gzip, deflate, br"},
		{"cookie", "theme=dark; env=stable; sid=0123456789abcdef"}, {"x-env", "canary"},
		{"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {"baggage", "user.kind=free"},
		{"x-forwarded-proto", "http"}, {"x-request-id", "b7ad6b71-6920-3331-b7ad-6b7169203331"},
	})
	b.ReportAllocs()
	for b.Loop() {
		r.Load(raw)
		_ = a.Assign(r, &Random{1, 2, 3})
	}
}

// pairs lays headers out as the proxy-wasm ABI does.
func pairs(headers [][2]string) []byte {
	raw := binary.LittleEndian.AppendUint32(nil, uint32(len(headers)))
	for _, h := range headers {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(len(h[0])))
		raw = binary.LittleEndian.AppendUint32(raw, uint32(len(h[1])))
	}
	for _, h := range headers {
		raw = append(append(append(append(raw, h[0]...), 0), h[1]...), 0)
	}
	return raw
}
