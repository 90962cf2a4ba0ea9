// Exponential backoff with full jitter: a random share of a ceiling that doubles,
// which spreads clients that lost their connection together.
// https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

/** pause gives milliseconds to wait after attempt (0 is the first), random in [0, 1). */
export function pause(attempt, random, base = 500, max = 20_000) {
  return random * Math.min(base * 2 ** Math.min(attempt, 30), max);
}
