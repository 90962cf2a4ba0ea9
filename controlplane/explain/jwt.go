package explain

import (
	"net/http"
	"slices"
	"strings"

	"github.com/tracegate/tracegate/controlplane/policy"
)

// verified says whether the claims are of a token that a rule wants, or refuses the
// request. Whose token it is, iss and aud say; where iss is no provider's it is a session
// of the product.
func (e *explanation) verified(r *policy.RuleJWT) bool {
	wanted := strings.Join(r.Require, " or ")
	if e.req.claims == "" {
		if r.AllowMissing {
			e.why("the rule wants no token that is bad, and there is none")
			return true
		}
		e.refuse(http.StatusUnauthorized, "the rule requires a token of "+wanted+", and there is none")
		return false
	}
	status := http.StatusUnauthorized
	for _, name := range r.Require {
		switch issued, meant := e.isOf(name); {
		case issued && meant:
			e.why("the rule requires a token of %s, and the claims are of one of %s", wanted, name)
			return true
		case issued:
			status = http.StatusForbidden
		}
	}
	if status == http.StatusForbidden {
		e.refuse(status, "the rule requires a token of "+wanted+", and the claim aud is another")
	} else {
		e.refuse(status, "the rule requires a token of "+wanted+", and the claim iss is another")
	}
	return false
}

// isOf says whether a provider has issued the claims, and meant us.
func (e *explanation) isOf(name string) (issued, meant bool) {
	iss, _ := e.req.said["iss"].(string)
	if name == policy.SessionProvider {
		ours := !slices.ContainsFunc(e.plan.JWT, func(p policy.JWTProvider) bool { return p.Issuer == iss })
		return ours, ours
	}
	i := slices.IndexFunc(e.plan.JWT, func(p policy.JWTProvider) bool { return p.Name == name && p.Issuer == iss })
	if i < 0 {
		return false, false
	}
	audiences := e.plan.JWT[i].Audiences
	return true, len(audiences) == 0 || slices.ContainsFunc(e.req.audiences(), func(a string) bool { return slices.Contains(audiences, a) })
}

// audiences are one text or a list of them (RFC 7519, 4.1.3).
func (r *request) audiences() (out []string) {
	switch aud := r.said["aud"].(type) {
	case string:
		return []string{aud}
	case []any:
		for _, a := range aud {
			if s, ok := a.(string); ok {
				out = append(out, s)
			}
		}
	}
	return out
}
