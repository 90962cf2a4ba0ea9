package fanout

import (
	"reflect"
	"testing"
)

// CheckCodec decodes what may be a push, and encodes and decodes it again.
func CheckCodec(t *testing.T, user string, b []byte) {
	t.Helper()
	node, p, ok := decode(user, b)
	if !ok {
		return
	}
	if p.Seq < 0 || user == "" && (p.Seq < 1 || p.Version < 1) {
		t.Errorf("%q: %+v", b, p)
	}
	again, q, ok := decode(user, encode(node, p))
	if !ok || again != node || !reflect.DeepEqual(p, q) {
		t.Errorf("%q: %+v, then %+v", b, p, q)
	}
}
