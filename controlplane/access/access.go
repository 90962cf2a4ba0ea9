// Package access is who may use the control API: names with a role, and of each token only
// its digest, so that whoever reads the file of them can use none.
//
// A token is random and as long as its digest. Nobody finds it by trying, so plain SHA-256
// is enough: a slow hash, as of passwords, lost, because every request would pay for it.
//
// It is pure: main writes the file, controlplane watches it, controlplane/ctl asks it.
package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tracegate/tracegate/mesh/strict"
)

// Role is what the holder of a token may do.
type Role string

// Viewers may look and ask; operators may change things, too.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
)

// MaxSize bounds a file, in bytes, and MaxTokens what it holds.
const (
	MaxSize   = 64 << 10
	MaxTokens = 256
)

// Token is one that opens the control API.
type Token struct {
	Name    string    `yaml:"name" json:"name"`
	Role    Role      `yaml:"role" json:"role"`
	SHA256  string    `yaml:"sha256" json:"-"` // of the token, 64 hex digits
	Expires time.Time `yaml:"expires,omitempty" json:"expires,omitzero"`
}

// New is a token made of randomness.
func New(random [sha256.Size]byte) string { return base64.RawURLEncoding.EncodeToString(random[:]) }

// Of is a token's entry.
func Of(name string, role Role, token string, expires time.Time) Token {
	sum := sha256.Sum256([]byte(token))
	return Token{Name: name, Role: role, SHA256: hex.EncodeToString(sum[:]), Expires: expires}
}

// document is the file.
type document struct {
	Tokens []Token `yaml:"tokens"`
}

// Parse reads a file. Its error is a [*strict.Error].
func Parse(data []byte) ([]Token, error) {
	var d document
	err := strict.Read(data, &d, func(r *strict.Reader) { check(r, d.Tokens) })
	if err != nil {
		return nil, err
	}
	return d.Tokens, nil
}

// name is what stands in records before a colon.
var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])?$`)

// taken says whether a name means something else where the record says who it was.
func taken(name string) bool {
	switch name {
	case "operator", "viewer", "policy", "webhook", "file", "etcd", "kubernetes":
		return true
	}
	return false
}

func check(r *strict.Reader, tokens []Token) {
	if len(tokens) > MaxTokens {
		r.Invalid("tokens", "%d tokens, more than %d", len(tokens), MaxTokens)
		return
	}
	names, digests := map[string]bool{}, map[string]bool{}
	for i, t := range tokens {
		path := fmt.Sprintf("tokens[%d]", i)
		raw, err := hex.DecodeString(t.SHA256)
		switch {
		case !name.MatchString(t.Name):
			r.Invalid(path+".name", "%q is not 1 to 32 lower-case letters, digits and inner hyphens, dots and underscores", strict.Clip(t.Name))
		case taken(t.Name):
			r.Invalid(path+".name", "%q is taken", t.Name)
		case names[t.Name]:
			r.Invalid(path+".name", "%q is there twice", t.Name)
		case t.Role != Viewer && t.Role != Operator:
			r.Invalid(path+".role", "%q is neither viewer nor operator", strict.Clip(string(t.Role)))
		case err != nil || len(raw) != sha256.Size:
			r.Invalid(path+".sha256", "not the 64 hex digits of a SHA-256")
		case digests[string(raw)]:
			r.Invalid(path+".sha256", "another name has the same token")
		}
		names[t.Name], digests[string(raw)] = true, true
	}
}

const header = `# Who may use the control API beside the two tokens in this folder. Tokens themselves are in
# no file: "tracegate ctl token" makes one, shows it once, and writes its digest here. The
# control plane reads a changed file at once.
`

// Format is the file that holds tokens.
func Format(tokens []Token) ([]byte, error) {
	out, err := yaml.Marshal(document{Tokens: slices.Concat([]Token{}, tokens)})
	if err != nil {
		return nil, fmt.Errorf("encode tokens: %w", err)
	}
	return append([]byte(header), out...), nil
}

// Set is tokens to be asked for. It does not change.
type Set struct {
	tokens  []Token
	digests [][sha256.Size]byte
}

// NewSet makes a set of tokens that [Parse] or [Of] returned.
func NewSet(tokens ...Token) Set {
	s := Set{tokens: tokens, digests: make([][sha256.Size]byte, len(tokens))}
	for i, t := range tokens {
		_, _ = hex.Decode(s.digests[i][:], []byte(t.SHA256))
	}
	return s
}

// Find is the token that somebody shows, unless it has expired. How long it takes says
// nothing of which one it is, nor of how much of it is right.
func (s Set) Find(shown string, now time.Time) (Token, bool) {
	sum, at := sha256.Sum256([]byte(shown)), -1
	for i := range s.digests {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], s.digests[i][:]), i, at)
	}
	if at < 0 || s.tokens[at].expired(now) {
		return Token{}, false
	}
	return s.tokens[at], true
}

func (t Token) expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }
