package protocol

import "net/http"

// Code is one of the closed list of errors a client may see.
type Code string

// The list. Anything else that goes wrong is CodeInternal and stays in the log.
const (
	CodeInvalidArgument  Code = "invalid_argument"  // Field says which
	CodeUnauthenticated  Code = "unauthenticated"   // no, expired or wrong token
	CodePermissionDenied Code = "permission_denied" // not a member, origin not allowed
	CodeNotFound         Code = "not_found"
	CodeAlreadyExists    Code = "already_exists"
	CodeTooLarge         Code = "too_large"
	CodeRateLimited      Code = "rate_limited" // temporary
	CodeUnavailable      Code = "unavailable"  // temporary: log, store or process not reachable or full
	CodeInternal         Code = "internal"     // temporary
)

// Codes is the list.
func Codes() []Code {
	return []Code{
		CodeInvalidArgument, CodeUnauthenticated, CodePermissionDenied, CodeNotFound, CodeAlreadyExists,
		CodeTooLarge, CodeRateLimited, CodeUnavailable, CodeInternal,
	}
}

// Error is what a client sees of a failure, in REST bodies and frames alike.
type Error struct {
	Code      Code   `json:"code"`
	Message   string `json:"message"`
	Field     string `json:"field,omitempty"`
	Temporary bool   `json:"temporary"` // the same call may succeed later
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// NewError makes an error of the list; field may be empty.
func NewError(code Code, field, message string) *Error {
	return &Error{Code: code, Message: message, Field: field, Temporary: code.Temporary()}
}

// Temporary says whether the same call may succeed later.
func (c Code) Temporary() bool {
	return c == CodeRateLimited || c == CodeUnavailable || c == CodeInternal
}

// Status is the HTTP status of a code.
func (c Code) Status() int {
	switch c {
	case CodeInvalidArgument:
		return http.StatusBadRequest
	case CodeUnauthenticated:
		return http.StatusUnauthorized
	case CodePermissionDenied:
		return http.StatusForbidden
	case CodeNotFound:
		return http.StatusNotFound
	case CodeAlreadyExists:
		return http.StatusConflict
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case CodeRateLimited:
		return http.StatusTooManyRequests
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// Close codes of a WebSocket: below 3500 reconnect, from 3500 on do not.
const (
	CloseShutdown = 3001 // the process drains
	CloseSlow     = 3008 // the client did not read fast enough; what it missed is resumable
	CloseMoved    = 3010 // grace of a Reconnect is over
	CloseStale    = 3012 // no pong
	CloseExpired  = 3500 // the log-in session has ended
	CloseProtocol = 3502 // a frame that cannot be read
)
