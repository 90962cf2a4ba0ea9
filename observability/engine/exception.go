package engine

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// Codes of ClickHouse (src/Common/ErrorCodes.cpp) that this package gives by itself.
const (
	codeNotImplemented   = 48
	codeSyntaxError      = 62
	codeUnknownSetting   = 115
	codeCannotRead       = 33
	codeTooManyQueries   = 202
	codeRequiredPassword = 194
	codeTooManyBytes     = 307
	codeAuthentication   = 516
	codeUnknown          = 1002
)

// exception is an error in ClickHouse's form, which clients parse.
type exception struct {
	code    int
	message string // "Code: N. DB::Exception: ... (NAME)"
}

func (e *exception) Error() string { return e.message }

func newException(code int, name, format string, args ...any) *exception {
	return &exception{code: code, message: fmt.Sprintf("Code: %d. DB::Exception: %s (%s)", code, fmt.Sprintf(format, args...), name)}
}

var codePrefix = regexp.MustCompile(`^Code:\s*(\d+)\.`)

// asException gives err ClickHouse's form, which errors of the engine have already.
func asException(err error) *exception {
	if e, ok := err.(*exception); ok { //nolint:errorlint // made in this package and never wrapped
		return e
	}
	msg := strings.TrimSpace(err.Error())
	if m := codePrefix.FindStringSubmatch(msg); m != nil {
		if code, aerr := strconv.Atoi(m[1]); aerr == nil {
			return &exception{code: code, message: msg}
		}
	}
	return newException(codeUnknown, "UNKNOWN_EXCEPTION", "%s", msg)
}

// status is the HTTP status of an exception code, after ClickHouse's
// exceptionCodeToHTTPStatus.
func (e *exception) status() int {
	switch e.code {
	case codeRequiredPassword:
		return http.StatusUnauthorized
	case 164, 192, 193, 291, 497, codeAuthentication: // readonly, access
		return http.StatusForbidden
	case 60, 81, 218, 390: // unknown table, database, function's table
		return http.StatusNotFound
	case 6, 16, 26, 27, codeCannotRead, 36, 38, 41, 42, 43, 44, 46, 47, 50, 53, 57, codeSyntaxError, 69, 70, 72, 73, 108, codeUnknownSetting, 117, 169, 179, 223, 386, 456, 457:
		return http.StatusBadRequest
	case codeNotImplemented:
		return http.StatusNotImplemented
	case 159, 160: // timeout exceeded, too slow
		return http.StatusRequestTimeout
	case codeTooManyBytes:
		return http.StatusRequestEntityTooLarge
	case codeTooManyQueries:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
