// Package secret holds text that must not reach a log. It is a leaf; it does not
// generate, store or compare secrets.
package secret

import "log/slog"

// redacted is how every secret prints.
const redacted = "[redacted]"

// Text prints as [redacted]; string(t) gives it out. It is read from JSON and YAML as
// plain text and written as it is, so do not encode what holds one for people.
type Text string

// String implements [fmt.Stringer].
func (Text) String() string { return redacted }

// GoString implements [fmt.GoStringer].
func (Text) GoString() string { return redacted }

// LogValue implements [slog.LogValuer].
func (Text) LogValue() slog.Value { return slog.StringValue(redacted) }
