package fanout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// take is the generic cell rate algorithm, as core/bucket has it: the key holds the time,
// in milliseconds of the server's clock, at which the bucket will be full again, and goes
// when it is. So the memory that limits take is bounded by the rate of what they limit.
// One that was filled more slowly before is at worst empty.
const take = `
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local at, empty = tonumber(redis.call('GET', KEYS[1]) or '0'), now + ARGV[1] * ARGV[2]
if at > empty then
  at = empty
  redis.call('SET', KEYS[1], string.format('%.3f', at), 'PX', math.ceil(at - now))
end
local full = math.max(at, now) + ARGV[1]
if full - now > ARGV[1] * ARGV[2] then return 0 end
redis.call('SET', KEYS[1], string.format('%.3f', full), 'PX', math.ceil(full - now))
return 1`

// errNotHealthy says that Redis is not asked, since it would not answer.
var errNotHealthy = errors.New("redis is not reachable")

// Take takes a token of a bucket that all processes share, if there is one; it is filled
// with perSecond tokens up to burst. While Redis is away the error comes at once.
func (f *Fanout) Take(ctx context.Context, key string, perSecond float64, burst int) (bool, error) {
	if !f.Healthy() {
		return false, errNotHealthy
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	each := min(float64(time.Second/time.Millisecond)/perSecond, float64(time.Hour/time.Millisecond))
	ok, err := redis.NewScript(take).Run(ctx, f.client, []string{f.cfg.Prefix + ":limit:" + key}, each, burst).Bool()
	if err != nil {
		return false, fmt.Errorf("take token: %w", err)
	}
	return ok, nil
}
