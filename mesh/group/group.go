// Package group names traffic. A request's color is the first eight hex digits
// of its TraceID; color, env and tenant together are its group, the unit that is
// measured, isolated and released.
//
// It is pure, imports nothing but the standard library, and is compiled into the
// edge filter, so the filter, the Go services and the ClickHouse expression
// [ClickHouseID] compute the same id (testdata/vectors.json holds all three to it).
// It does not choose a color: that is wasm/color.
package group

import (
	"crypto/md5"
	"encoding/hex"
)

// ID is six lower-case hex digits: md5(traceid[:8]|env|tenant)[:6].
type ID string

// ClickHouseID is the group id as a ClickHouse expression over a TraceId column
// and two string expressions for env and tenant.
const ClickHouseID = "substring(lower(hex(MD5(concat(substring(TraceId, 1, 8), '|', %s, '|', %s)))), 1, 6)"

// Group is one traffic group.
type Group struct {
	Color  Color
	Env    string
	Tenant string
}

// ID returns the name of the group. It allocates once, for the result.
func (g Group) ID() ID {
	var buf [96]byte
	key := g.Color.Append(buf[:0])
	key = append(key, '|')
	key = append(key, g.Env...)
	key = append(key, '|')
	key = append(key, g.Tenant...)
	sum := md5.Sum(key)
	var out [6]byte
	hex.Encode(out[:], sum[:3])
	return ID(out[:])
}

// Valid says whether id has the form of a group id.
func (id ID) Valid() bool {
	if len(id) != 6 {
		return false
	}
	for i := range len(id) {
		if !isLowerHex(id[i]) {
			return false
		}
	}
	return true
}
