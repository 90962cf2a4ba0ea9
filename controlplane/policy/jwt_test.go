package policy

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	ecKey  = `{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"sig","kid":"1"}`
	edKey  = `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"ed"}`
	aesKey = `{"kty":"oct","alg":"A128KW","k":"GawgguFyGrWKav7AX4VKUg"}`
)

// withJWT has providers, one a line from line 2 on, and a rule with keys in line 8 where
// there is one provider.
func withJWT(rule string, providers ...string) string {
	return "jwt:\n  - " + strings.Join(providers, "\n  - ") +
		"\nservices:\n  - name: core\n    pools: [{name: baseline}]\n    routes: [{prefix: /}]\n    rules:\n      - {name: a, match: [{prefix: /a}]" + rule + "}\n"
}

func TestParseJWT(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/jwt.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := JWTProvider{
		Name: "corp", Issuer: "https://id.example.org", Audiences: []string{"chat", "https://chat.example.org"},
		JWKSURL: "https://id.example.org/keys", CA: "corp", Refresh: 10 * time.Minute,
		FromHeaders: []JWTHeader{{"Authorization", "Bearer "}, {"x-token", ""}}, FromParams: []string{"access_token"}, FromCookies: []string{"corp_token"},
	}
	if diff := cmp.Diff(want, p.JWT[0]); diff != "" {
		t.Errorf("jwt (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]JWTHeader{{"Authorization", "Bearer "}}, p.JWT[1].FromHeaders); diff != "" {
		t.Errorf("where nothing is said (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&RuleJWT{Require: []string{"corp", "partner", "session"}, AllowMissing: true}, p.Services[0].Rules[1].JWT); diff != "" {
		t.Errorf("rule (-want +got):\n%s", diff)
	}
	if p, err = Parse([]byte(withJWT("", "{name: a, issuer: b, jwksURL: 'http://[::1]:80/keys'}"))); err != nil || p.JWT[0].Refresh != 5*time.Minute {
		t.Errorf("defaults: %+v, %v", p.JWT, err)
	}
}

func TestParseNamesWhatIsWrongWithJWT(t *testing.T) {
	t.Parallel()
	const from = ", jwksURL: 'https://id.test/keys'"
	one := func(keys string) string { return withJWT("", "{name: corp, issuer: id"+keys+"}") }
	rule := func(keys string) string { return withJWT(", jwt: "+keys, "{name: corp, issuer: id"+from+"}") }
	for name, c := range map[string]struct{ doc, want string }{
		"unknown key":          {one(from + ", aud: [a]"), "line 2: jwt[0].aud: unknown key"},
		"no name":              {withJWT("", "{issuer: id"+from+"}"), `line 2: jwt[0].name: "" is not 1 to 40`},
		"our own name":         {withJWT("", "{name: session, issuer: id"+from+"}"), `line 2: jwt[0].name: "session" is the product's own sessions`},
		"a name twice":         {withJWT("", "{name: corp, issuer: id"+from+"}", "{name: corp, issuer: id"+from+"}"), `line 3: jwt[1].name: provider "corp" appears twice`},
		"no issuer":            {withJWT("", "{name: corp"+from+"}"), `line 2: jwt[0].issuer: "" is not 1 to 1024`},
		"an empty audience":    {one(from + ", audiences: [a, '']"), `line 2: jwt[0].audiences[1]: "" is not 1 to 1024`},
		"no keys":              {one(""), "line 2: jwt[0]: wants one of jwks and jwksURL"},
		"keys twice":           {one(from + ", jwks: '{}'"), "line 2: jwt[0]: wants one of jwks and jwksURL"},
		"no JSON":              {one(", jwks: 'keys'"), `line 2: jwt[0].jwks: no JSON object with "keys"`},
		"no key":               {one(`, jwks: '{"keys":[]}'`), "line 2: jwt[0].jwks: no public key that verifies signatures"},
		"a secret":             {one(", jwks: '{\"keys\":[" + ecKey + "," + aesKey + "]}'"), "line 2: jwt[0].jwks: keys[1] is a secret"},
		"an authority for it":  {one(", ca: a, jwks: '{\"keys\":[" + ecKey + "]}'"), "line 2: jwt[0]: ca and refresh are for jwksURL"},
		"no https":             {one(", jwksURL: 'http://id.test/keys'"), "line 2: jwt[0].jwksURL: http is for loopback only"},
		"no web":               {one(", jwksURL: 'file:///etc/passwd'"), `line 2: jwt[0].jwksURL: "file:///etc/passwd" is not a URL with a host`},
		"another scheme":       {one(", jwksURL: 'ftp://id.test'"), `line 2: jwt[0].jwksURL: "ftp" is neither https nor http`},
		"a password":           {one(", jwksURL: 'https://a:b@id.test'"), "line 2: jwt[0].jwksURL: "},
		"a port":               {one(", jwksURL: 'https://id.test:99999'"), `line 2: jwt[0].jwksURL: "99999" is no port`},
		"a path as authority":  {one(from + ", ca: ../x"), "line 2: jwt[0].ca: "},
		"too often":            {one(from + ", refresh: 10ms"), "line 2: jwt[0].refresh: 10ms is not between 1s"},
		"a header of ours":     {one(from + ", fromHeaders: [{name: x-traffic-claims}]"), `line 2: jwt[0].fromHeaders[0].name: "x-traffic-claims" belongs to the edge`},
		"a prefix":             {one(from + ", fromHeaders: [{name: a, prefix: \"\\n\"}]"), "line 2: jwt[0].fromHeaders[0].prefix: "},
		"a parameter":          {one(from + ", fromParams: ['a&b']"), "line 2: jwt[0].fromParams[0]: "},
		"a cookie":             {one(from + ", fromCookies: ['a;b']"), "line 2: jwt[0].fromCookies[0]: "},
		"too many places":      {one(from + ", fromCookies: [a, b, c, d, e]"), "line 2: jwt[0].fromCookies: 5 entries, more than 4"},
		"nobody is required":   {rule("{}"), "line 8: services[0].rules[0].jwt.require: 0 providers, not 1 to 16"},
		"who is not there":     {rule("{require: [corp, korp]}"), `line 8: services[0].rules[0].jwt.require[1]: no provider "korp" in jwt`},
		"required twice":       {rule("{require: [corp, corp]}"), `line 8: services[0].rules[0].jwt.require[1]: provider "corp" appears twice`},
		"unknown key of rules": {rule("{require: [corp], allowFailed: true}"), "line 8: services[0].rules[0].jwt.allowFailed: unknown key"},
	} {
		if _, err := Parse([]byte(c.doc)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant: %s", name, err, c.want)
		}
	}
}

// TestReaderSeesThatAProviderIsGone: a service that stands as it stood is checked against
// the providers of this version.
func TestReaderSeesThatAProviderIsGone(t *testing.T) {
	t.Parallel()
	doc := withJWT(", jwt: {require: [corp]}", "{name: corp, issuer: id, jwksURL: 'https://id.test/keys'}")
	var r Reader
	if _, err := r.Parse([]byte(doc)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Parse([]byte(strings.Replace(doc, "name: corp", "name: korp", 1))); err == nil || !strings.Contains(err.Error(), `no provider "corp" in jwt`) {
		t.Errorf("taken: %v", err)
	}
}

func TestParseJWKS(t *testing.T) {
	t.Parallel()
	const (
		encrypts = `{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"enc"}`
		offCurve = `{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"}`
		short    = `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc","e":"AQAB"}`
	)
	keys := func(k ...string) []byte { return []byte(`{"keys":[` + strings.Join(k, ",") + `]}`) }
	one, err := ParseJWKS(keys(ecKey, `{"kty":"new"}`, edKey, encrypts, offCurve, short, `{"kty":7}`))
	if err != nil {
		t.Fatal(err)
	}
	other, err := ParseJWKS(keys(strings.Replace(edKey, `"kid"`, `"x5c":["MII"],"kid"`, 1), ecKey))
	if err != nil || one != other {
		t.Errorf("the same keys are not the same text: %v\n%s\n%s", err, one, other)
	}
	var set struct{ Keys []jwk }
	if err := json.Unmarshal([]byte(one), &set); err != nil || len(set.Keys) != 2 || set.Keys[0].Kid != "1" || set.Keys[1].Kid != "ed" {
		t.Errorf("keys: %+v, %v", set, err)
	}
	again, err := ParseJWKS([]byte(one))
	if err != nil || again != one {
		t.Errorf("read again: %s, %v", again, err)
	}
	for name, data := range map[string][]byte{
		"too large":   []byte(strings.Repeat(" ", MaxJWKS+1)),
		"a list":      []byte("[]"),
		"none":        keys(encrypts, offCurve, short),
		"private":     keys(strings.Replace(edKey, `"kid"`, `"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","kid"`, 1)),
		"symmetric":   keys(aesKey),
		"too many":    keys(strings.Split(strings.Repeat(edKey+"\n", maxJWTKeys+1), "\n")[:maxJWTKeys+1]...),
		"cut in half": keys(ecKey)[:40],
	} {
		if got, err := ParseJWKS(data); err == nil {
			t.Errorf("%s: taken as %s", name, got)
		}
	}
}

func FuzzParseJWKS(f *testing.F) {
	f.Add([]byte(`{"keys":[` + ecKey + `,` + edKey + `]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-521"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := ParseJWKS(data)
		if err != nil {
			return
		}
		if twice, err := ParseJWKS([]byte(once)); err != nil || twice != once {
			t.Errorf("%s read again is %s, %v", once, twice, err)
		}
	})
}
