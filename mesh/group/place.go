package group

import "strconv"

// Buckets is how many places [Bucket] tells apart.
const Buckets = 10_000

// Bucket places a key in one of [Buckets], evenly, and the same one for ever: a share is
// the buckets below a bound, so raising the bound only adds keys.
//
// It is FNV-1a with MurmurHash3's finalizer, because FNV alone spreads short keys
// that differ in their last byte badly over the high bits. It is not secret: a user
// who may choose the key can choose the bucket.
func Bucket(salt, key string) uint32 {
	h := uint64(14695981039346656037)
	for i := range len(salt) {
		h = (h ^ uint64(salt[i])) * 1099511628211
	}
	h *= 1099511628211 // a zero byte: ("ab", "c") is not ("a", "bc")
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return uint32(h % Buckets)
}

// Place is a user's place in a group that is released step by step, 0 to 99: those below
// the share are served by the group's own pool again. Every group has an order of its
// own, so that nobody is always among the first.
func Place(id ID, user string) uint32 { return Bucket(string(id), user) * 100 / Buckets }

// PlaceText is a place as the edge writes it: two digits.
func PlaceText(place uint32) string {
	return strconv.Itoa(int(place/10)) + strconv.Itoa(int(place%10))
}
