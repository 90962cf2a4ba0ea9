package api

import (
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
)

// errorDomain is whose closed list a code is of (google.rpc.ErrorInfo).
const errorDomain = "chat.tracegate"

// retryAfter is what a client is told to wait at least, where the same call may succeed.
const retryAfter = time.Second

// grpcCode is the gRPC code of an error. Each has one of its own, so that a client that
// looks at nothing else can tell them apart.
func grpcCode(c protocol.Code) codes.Code {
	switch c {
	case protocol.CodeInvalidArgument:
		return codes.InvalidArgument
	case protocol.CodeUnauthenticated:
		return codes.Unauthenticated
	case protocol.CodePermissionDenied:
		return codes.PermissionDenied
	case protocol.CodeNotFound:
		return codes.NotFound
	case protocol.CodeAlreadyExists:
		return codes.AlreadyExists
	case protocol.CodeTooLarge:
		return codes.OutOfRange
	case protocol.CodeRateLimited:
		return codes.ResourceExhausted
	case protocol.CodeUnavailable:
		return codes.Unavailable
	default:
		return codes.Internal
	}
}

// statusOf is an error as gRPC has it: with the API's own Error among its details, and
// what generic clients look for (google.rpc).
func statusOf(e *protocol.Error) error {
	details := []protoadapt.MessageV1{
		protoadapt.MessageV1Of(wire.Error(e)),
		protoadapt.MessageV1Of(&errdetails.ErrorInfo{Reason: string(e.Code), Domain: errorDomain}),
	}
	if e.Field != "" {
		details = append(details, protoadapt.MessageV1Of(&errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: e.Field, Description: e.Message}},
		}))
	}
	if waits(e.Code) {
		details = append(details, protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}))
	}
	s, err := status.New(grpcCode(e.Code), e.Message).WithDetails(details...)
	if err != nil {
		return status.Error(grpcCode(e.Code), e.Message)
	}
	return s.Err()
}

// waits says whether a client is told how long to wait.
func waits(c protocol.Code) bool {
	return c == protocol.CodeRateLimited || c == protocol.CodeUnavailable
}

// ErrorOf is the error of the closed list that a gRPC status carries.
func ErrorOf(err error) (*protocol.Error, bool) {
	s, _ := status.FromError(err)
	for _, d := range s.Details() {
		if e, ok := d.(*chatv1.Error); ok {
			return &protocol.Error{Code: protocol.Code(e.GetCode()), Message: e.GetMessage(), Field: e.GetField(), Temporary: e.GetTemporary()}, true
		}
	}
	return nil, false
}

// visible is what a client may see of an error.
func visible(err error) *protocol.Error {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e
	}
	return protocol.NewError(protocol.CodeInternal, "", "internal error")
}
