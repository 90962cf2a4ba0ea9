package color

const percentBuckets = 10_000

// bucket places a user in one of percentBuckets, evenly, and the same one for
// ever: a share is the buckets below a bound, so raising the bound only adds users.
//
// It is FNV-1a with MurmurHash3's finalizer, because FNV alone spreads short keys
// that differ in their last byte badly over the high bits. It is not secret: a user
// who may choose the key can choose the bucket.
func bucket(salt, key string) uint32 {
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
	return uint32(h % percentBuckets)
}
