-- A sliding window of two fixed ones: what the last window counted fades while this one
-- passes. KEYS: the count of each limit. ARGV: for each, room, seconds of its window,
-- hits, and 1 where it refuses nothing. All are looked at before any is counted: a
-- request that one limit refuses does not use up another.
-- Returns, for each: 1 where there is room, what is left, milliseconds until the window ends.
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local out, used, room = {}, {}, true
for i, key in ipairs(KEYS) do
  local limit, window = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2]) * 1000
  local hits, shadow = tonumber(ARGV[4 * i - 1]), ARGV[4 * i] == '1'
  local start = math.floor(ms / window)
  local seen = redis.call('HMGET', key, 'start', 'this', 'last')
  local this, last = tonumber(seen[2] or 0), tonumber(seen[3] or 0)
  local gone = start - tonumber(seen[1] or start)
  if gone == 1 then
    last = this
    this = 0
  elseif gone ~= 0 then
    last = 0
    this = 0
  end
  local left = window - ms % window
  local estimate = this + last * left / window
  local ok = estimate + hits <= limit
  used[i] = {key, start, this, last, hits, window, ok or shadow}
  room = room and (ok or shadow)
  out[#out + 1] = ok and 1 or 0
  out[#out + 1] = math.max(0, math.floor(limit - estimate - (ok and hits or 0)))
  out[#out + 1] = left
end
for _, u in ipairs(used) do
  if room then
    redis.call('HSET', u[1], 'start', u[2], 'this', u[3] + u[5], 'last', u[4])
    redis.call('PEXPIRE', u[1], 2 * u[6])
  end
end
return out
