package policy

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// JWTProvider is an identity provider whose tokens (JWT, RFC 7519) edges verify: their
// signature, issuer, audience and time. Exactly one of JWKS and JWKSURL is set.
//
// The claims of a verified token are for conditions of the color policy, whatever rule
// takes the request. Of several tokens that verify, the one of a session of the product
// counts, then that of the first provider.
type JWTProvider struct {
	Name      string   `yaml:"name"`
	Issuer    string   `yaml:"issuer"`              // claim iss, exactly
	Audiences []string `yaml:"audiences,omitempty"` // claim aud has one of them; any where empty
	// JWKS are public keys (RFC 7517), in JSON.
	JWKS string `yaml:"jwks,omitempty"`
	// JWKSURL is where the provider shows them, by https, or by http on loopback. The
	// control plane asks, and the last good answer goes on.
	JWKSURL string        `yaml:"jwksURL,omitempty"`
	CA      string        `yaml:"ca,omitempty"`      // name in the certificates folder whose ca.crt has signed that server; the system's where empty
	Refresh time.Duration `yaml:"refresh,omitempty"` // between two questions; 5m where zero

	// Where the token is; in the header Authorization, behind Bearer, where all are empty.
	FromHeaders []JWTHeader `yaml:"fromHeaders,omitempty"`
	FromParams  []string    `yaml:"fromParams,omitempty"` // of the query
	FromCookies []string    `yaml:"fromCookies,omitempty"`
}

// JWTHeader is a header that has a token behind a prefix.
type JWTHeader struct {
	Name   string `yaml:"name"`
	Prefix string `yaml:"prefix,omitempty"` // with its space: "Bearer "
}

// RuleJWT says who may ask: who has a token that one of the providers verifies. Others get
// 401, and 403 where only the audience is another.
type RuleJWT struct {
	Require      []string `yaml:"require"`                // names of Policy.JWT; session is the product's own
	AllowMissing bool     `yaml:"allowMissing,omitempty"` // without any token too, but with none that is bad
}

// SessionProvider is the name of the product's own sessions in [RuleJWT.Require].
const SessionProvider = "session"

// MaxJWKS bounds a JWKS, in bytes.
const MaxJWKS = 64 << 10

const (
	defaultRefresh  = 5 * time.Minute
	maxJWTProviders = 16
	maxJWTPlaces    = 4 // of one kind, of one provider
	maxJWTKeys      = 64
)

// checkJWT also fills in what the document left to defaults.
func (d *document) checkJWT(p *Policy) {
	if n := len(p.JWT); n > maxJWTProviders {
		d.invalid("jwt", "%d providers, more than %d", n, maxJWTProviders)
		return
	}
	names := map[string]bool{SessionProvider: true}
	for i := range p.JWT {
		j, at := &p.JWT[i], index("jwt", i)
		d.checkName(at+".name", j.Name)
		switch {
		case j.Name == SessionProvider:
			d.invalid(at+".name", "%q is the product's own sessions", j.Name)
		case names[j.Name]:
			d.invalid(at+".name", "provider %q appears twice", clip(j.Name))
		}
		names[j.Name] = true
		if j.Issuer == "" || len(j.Issuer) > maxValue || !printable(j.Issuer) {
			d.invalid(at+".issuer", "%q is not 1 to %d printable characters", clip(j.Issuer), maxValue)
		}
		for k, a := range d.bounded(at+".audiences", j.Audiences) {
			if a == "" || len(a) > maxValue || !printable(a) {
				d.invalid(index(at+".audiences", k), "%q is not 1 to %d printable characters", clip(a), maxValue)
			}
		}
		d.checkKeys(at, j)
		d.checkJWTPlaces(at, j)
	}
	// Of every version anew: a service that stands as it stood may name a provider that is gone.
	for i, s := range p.Services {
		for j, r := range s.Rules {
			if r.JWT != nil {
				d.checkRuleJWT(index(index("services", i)+".rules", j)+".jwt.require", r.JWT.Require, names)
			}
		}
	}
}

func (d *document) checkRuleJWT(at string, require []string, names map[string]bool) {
	if n := len(require); n == 0 || n > maxJWTProviders {
		d.invalid(at, "%d providers, not 1 to %d", n, maxJWTProviders)
		return
	}
	for i, name := range require {
		if !names[name] {
			d.invalid(index(at, i), "no provider %q in jwt", clip(name))
		}
		if slices.Contains(require[:i], name) {
			d.invalid(index(at, i), "provider %q appears twice", clip(name))
		}
	}
}

func (d *document) checkKeys(at string, j *JWTProvider) {
	if (j.JWKS == "") == (j.JWKSURL == "") {
		d.invalid(at, "wants one of jwks and jwksURL")
		return
	}
	if j.JWKS != "" {
		if j.CA != "" || j.Refresh != 0 {
			d.invalid(at, "ca and refresh are for jwksURL")
		}
		keys, err := ParseJWKS([]byte(j.JWKS))
		if err != nil {
			d.invalid(at+".jwks", "%v", err)
		}
		j.JWKS = keys
		return
	}
	if err := checkJWKSURL(j.JWKSURL); err != nil {
		d.invalid(at+".jwksURL", "%v", err)
	}
	if j.CA != "" {
		d.checkName(at+".ca", j.CA)
	}
	if j.Refresh == 0 {
		j.Refresh = defaultRefresh
	}
	d.duration(at+".refresh", j.Refresh, time.Second, 24*time.Hour)
}

func checkJWKSURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || len(s) > maxValue || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return fmt.Errorf("%q is not a URL with a host, without user and fragment and of at most %d bytes", clip(s), maxValue)
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return errors.New("http is for loopback only: whoever stands between could bring keys of his own")
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is neither https nor http", clip(u.Scheme))
	}
	if port := u.Port(); port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fmt.Errorf("%q is no port", clip(port))
		}
	}
	return nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// checkJWTPlaces is about where the token is.
func (d *document) checkJWTPlaces(at string, j *JWTProvider) {
	for key, n := range map[string]int{".fromHeaders": len(j.FromHeaders), ".fromParams": len(j.FromParams), ".fromCookies": len(j.FromCookies)} {
		if n > maxJWTPlaces {
			d.invalid(at+key, "%d entries, more than %d", n, maxJWTPlaces)
			return
		}
	}
	for i, h := range j.FromHeaders {
		at := index(at+".fromHeaders", i)
		d.checkChanged(at+".name", h.Name)
		if len(h.Prefix) > 32 || !printable(strings.TrimRight(h.Prefix, " ")) {
			d.invalid(at+".prefix", "%q is not at most 32 printable characters", clip(h.Prefix))
		}
	}
	for i, name := range j.FromParams {
		if !cookieName.MatchString(name) {
			d.invalid(index(at+".fromParams", i), "%q is not a parameter's name: 1 to 64 letters, digits, dots, hyphens and underscores", clip(name))
		}
	}
	for i, name := range j.FromCookies {
		d.checkCookieName(index(at+".fromCookies", i), name)
	}
	if len(j.FromHeaders)+len(j.FromParams)+len(j.FromCookies) == 0 {
		j.FromHeaders = []JWTHeader{{Name: "Authorization", Prefix: "Bearer "}}
	}
}

// jwk is a public key of a JWKS, with what edges need of it.
type jwk struct {
	Kty string `json:"kty"`
	Kid string `json:"kid,omitempty"`
	Alg string `json:"alg,omitempty"`
	Use string `json:"use,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	Crv string `json:"crv,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
}

// ParseJWKS returns the keys of a JWKS that edges can verify signatures with, in one form
// and order, so that the same keys are the same text. Keys of other kinds are passed over;
// none that is left is an error, and so is a secret among them: what stands in a policy is
// no secret.
func ParseJWKS(data []byte) (string, error) {
	if len(data) > MaxJWKS {
		return "", fmt.Errorf("%d bytes, more than %d", len(data), MaxJWKS)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return "", errors.New(`no JSON object with "keys", a list (RFC 7517)`)
	}
	if len(set.Keys) > maxJWTKeys {
		return "", fmt.Errorf("%d keys, more than %d", len(set.Keys), maxJWTKeys)
	}
	var keys []jwk
	for i, raw := range set.Keys {
		var k struct {
			jwk
			D *json.RawMessage `json:"d"`
			K *json.RawMessage `json:"k"`
		}
		if err := json.Unmarshal(raw, &k); err != nil {
			continue // of a kind that is not known here, RFC 7517, 5
		}
		if k.D != nil || k.K != nil {
			return "", fmt.Errorf("keys[%d] is a secret, or has its private part", i)
		}
		if k.verifies() {
			keys = append(keys, k.jwk)
		}
	}
	if len(keys) == 0 {
		return "", errors.New("no public key that verifies signatures (RSA of 2048 bits, EC, Ed25519)")
	}
	slices.SortFunc(keys, func(a, b jwk) int {
		return strings.Compare(a.Kid+"\x00"+a.Kty+a.Alg+a.N+a.X, b.Kid+"\x00"+b.Kty+b.Alg+b.N+b.X)
	})
	out, err := json.Marshal(map[string][]jwk{"keys": keys})
	return string(out), err
}

// verifies says whether the key can be used for signatures.
func (k jwk) verifies() bool {
	if k.Use != "" && k.Use != "sig" {
		return false
	}
	bytes := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
		if err != nil {
			return nil
		}
		return b
	}
	switch k.Kty {
	case "RSA":
		n, e := bytes(k.N), bytes(k.E)
		for len(n) > 0 && n[0] == 0 {
			n = n[1:]
		}
		return len(n) >= 2048/8 && len(e) > 0
	case "EC":
		curve := map[string]ecdh.Curve{"P-256": ecdh.P256(), "P-384": ecdh.P384(), "P-521": ecdh.P521()}[k.Crv]
		if curve == nil {
			return false
		}
		_, err := curve.NewPublicKey(slices.Concat([]byte{4}, bytes(k.X), bytes(k.Y))) // uncompressed, SEC 1, 2.3.3
		return err == nil
	case "OKP":
		return k.Crv == "Ed25519" && len(bytes(k.X)) == 32
	default:
		return false
	}
}
