package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
)

// maxDepth bounds how deep values are nested; deeper ones become empty.
const maxDepth = 8

// clip cuts s to n bytes at most, at a rune's start.
func (r *Result) clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	r.Cut[CutText]++
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// attributes flattens kvs to text. The first of a repeated key wins. Never nil.
func (r *Result) attributes(kvs []*commonv1.KeyValue, l Limits) map[string]string {
	m := make(map[string]string, min(len(kvs), l.Attributes))
	for _, kv := range kvs {
		r.put(m, kv.GetKey(), text(kv.GetValue()), l)
	}
	return m
}

// put adds an attribute where it is new and there is room.
func (r *Result) put(m map[string]string, key, value string, l Limits) {
	key = r.clip(key, l.Key)
	if _, taken := m[key]; taken {
		return
	}
	if len(m) == l.Attributes {
		r.Cut[CutAttributes]++
		return
	}
	m[key] = r.clip(value, l.Value)
}

// text is v as the collector's ClickHouse exporter writes it: scalars as themselves,
// lists and maps as JSON, bytes as base64.
func text(v *commonv1.AnyValue) string {
	switch x := v.GetValue().(type) {
	case *commonv1.AnyValue_StringValue:
		return x.StringValue
	case *commonv1.AnyValue_BoolValue:
		return strconv.FormatBool(x.BoolValue)
	case *commonv1.AnyValue_IntValue:
		return strconv.FormatInt(x.IntValue, 10)
	case *commonv1.AnyValue_DoubleValue:
		return strconv.FormatFloat(x.DoubleValue, 'g', -1, 64)
	case *commonv1.AnyValue_BytesValue:
		return base64.StdEncoding.EncodeToString(x.BytesValue)
	case *commonv1.AnyValue_ArrayValue, *commonv1.AnyValue_KvlistValue:
		b, err := json.Marshal(plain(v, 0))
		if err != nil { // plain makes nothing that JSON cannot write
			return ""
		}
		return string(b)
	}
	return ""
}

// plain is v made of what encoding/json writes.
func plain(v *commonv1.AnyValue, depth int) any {
	if depth == maxDepth {
		return nil
	}
	switch x := v.GetValue().(type) {
	case *commonv1.AnyValue_ArrayValue:
		list := make([]any, 0, len(x.ArrayValue.GetValues()))
		for _, e := range x.ArrayValue.GetValues() {
			list = append(list, plain(e, depth+1))
		}
		return list
	case *commonv1.AnyValue_KvlistValue:
		m := make(map[string]any, len(x.KvlistValue.GetValues()))
		for _, e := range x.KvlistValue.GetValues() {
			m[e.GetKey()] = plain(e.GetValue(), depth+1)
		}
		return m
	case *commonv1.AnyValue_BoolValue:
		return x.BoolValue
	case *commonv1.AnyValue_IntValue:
		return x.IntValue
	case *commonv1.AnyValue_DoubleValue:
		if math.IsNaN(x.DoubleValue) || math.IsInf(x.DoubleValue, 0) {
			return text(v)
		}
		return x.DoubleValue
	case nil:
		return nil
	}
	return text(v)
}

// id is b in hex where it has n bytes that are not all zero.
func id(b []byte, n int) (string, bool) {
	if len(b) != n {
		return "", false
	}
	for _, x := range b {
		if x != 0 {
			return hex.EncodeToString(b), true
		}
	}
	return "", false
}

// nano is a time of OTLP; ok is false where it is zero or beyond what fits.
func nano(n uint64) (t time.Time, ok bool) {
	if n == 0 || n > math.MaxInt64 {
		return time.Time{}, false
	}
	return time.Unix(0, int64(n)).UTC(), true
}
