package file

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tracegate/tracegate/core/protocol"
)

var errTooLarge = errors.New("content is too large")

// limited reads up to left bytes; what is more is errTooLarge. It remembers how reading
// ended, because the one who stores wraps that in words of its own.
type limited struct {
	r    io.Reader
	left int64
	err  error
}

func (l *limited) Read(p []byte) (int, error) {
	if l.err != nil {
		return 0, l.err
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	if int64(n) > l.left {
		n, err = int(l.left), errTooLarge
	}
	l.left -= int64(n)
	l.err = err
	return n, err
}

// blobError is trouble with the place of content.
type blobError struct{ error }

func (e *blobError) Unwrap() error { return e.error }

// uploadError says whose fault a broken upload was: the client's, that of the place of
// content, or ours.
func (f *Files) uploadError(body *limited, err error) error {
	switch {
	case errors.Is(body.err, errTooLarge):
		return f.refuse("too_large", protocol.NewError(protocol.CodeTooLarge, "file", fmt.Sprintf("file has more than %d bytes", f.cfg.MaxSize)))
	case body.err != nil && !errors.Is(body.err, io.EOF):
		return f.refuse("client", protocol.NewError(protocol.CodeInvalidArgument, "file", "file did not come whole"))
	}
	if pe, ok := errors.AsType[*protocol.Error](err); ok {
		return f.refuse("client", pe)
	}
	if _, ok := errors.AsType[*blobError](err); ok && !errors.Is(err, context.Canceled) {
		f.metrics.uploads.WithLabelValues("unavailable").Inc()
		return unavailable(err)
	}
	f.metrics.uploads.WithLabelValues("internal").Inc()
	return err
}

// refuse counts a refusal by its reason.
func (f *Files) refuse(reason string, err *protocol.Error) error {
	f.metrics.uploads.WithLabelValues(reason).Inc()
	return err
}

// unavailable is what a user sees of trouble with the place of content.
func unavailable(cause error) error { return &unavailableError{cause} }

type unavailableError struct{ cause error }

func (e *unavailableError) Error() string { return e.cause.Error() }

// Unwrap gives the cause to logs and, as a *protocol.Error, the answer to the user.
func (e *unavailableError) Unwrap() []error {
	return []error{protocol.NewError(protocol.CodeUnavailable, "", "files cannot be reached at the moment: try again"), e.cause}
}
