// Package bucket limits rates. It is pure; core/session has a bucket for each connection
// and core/api one for each user and address, so a bucket is one word: those of
// golang.org/x/time/rate have 80 bytes.
package bucket

import "time"

// Bucket is a token bucket: the time, in unix nanoseconds, at which it will be full
// again (the generic cell rate algorithm). Its zero value is full. It is not safe for
// concurrent use.
type Bucket int64

// Take takes a token, if there is one, of a bucket that is filled with perSecond tokens
// up to burst. Where these are others than before, it is at worst empty.
func (b *Bucket) Take(now time.Time, perSecond float64, burst int) bool {
	each := min(float64(time.Second)/perSecond, float64(time.Hour)) // a rate may be next to nothing
	full, missing := each*float64(burst), float64(max(int64(*b)-now.UnixNano(), 0))
	if missing > full { // it was filled more slowly
		missing = full
		*b = Bucket(now.UnixNano() + int64(full))
	}
	until := missing + each
	if until > full {
		return false
	}
	*b = Bucket(now.UnixNano() + int64(until))
	return true
}

// Full says whether no token is missing.
func (b Bucket) Full(now time.Time) bool { return int64(b) <= now.UnixNano() }
