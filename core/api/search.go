package api

import (
	"context"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tracegate/tracegate/core/protocol"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
	"github.com/tracegate/tracegate/core/protocol/wire"
	"github.com/tracegate/tracegate/core/search"
)

// Search finds messages; see core/search.
type Search interface {
	Search(ctx context.Context, q search.Query) (protocol.FoundPage, error)
}

const defaultResults = 20

// SearchMessages pages through the messages that have what is looked for, newest first.
func (s *service) SearchMessages(ctx context.Context, in *chatv1.SearchMessagesRequest) (*chatv1.SearchMessagesResponse, error) {
	if s.deps.Search == nil {
		return nil, noSuchOperation()
	}
	user := caller(ctx).User.ID
	if err := s.limit(s.searches, "search", user); err != nil {
		return nil, err
	}
	limit, err := limitOf(in.Limit, defaultResults, search.MaxLimit)
	if err != nil {
		return nil, err
	}
	if !utf8.ValidString(in.GetQ()) { // on its way to the search process it would be replaced
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "q", "q must be valid UTF-8")
	}
	after, err := timeOf("after", in.GetAfter())
	if err != nil {
		return nil, err
	}
	before, err := timeOf("before", in.GetBefore())
	if err != nil {
		return nil, err
	}
	page, err := s.deps.Search.Search(ctx, search.Query{
		UserID: user, Text: in.GetQ(), Conversation: in.GetConversation(), Sender: in.GetSender(),
		After: after, Before: before, Limit: limit, Cursor: in.GetCursor(),
	})
	if err != nil {
		return nil, err
	}
	out := &chatv1.SearchMessagesResponse{}
	if page.Next != "" {
		out.Next = &page.Next
	}
	for _, r := range page.Results {
		out.Results = append(out.Results, resultOf(r))
	}
	return out, nil
}

func resultOf(r protocol.Found) *chatv1.SearchResult {
	out := &chatv1.SearchResult{Message: wire.Message(r.Message)}
	for _, p := range r.Snippet {
		part := &chatv1.SnippetPart{Text: p.Text}
		if p.Match {
			part.Match = &p.Match
		}
		out.Snippet = append(out.Snippet, part)
	}
	return out
}

// timeOf is the zero time where there is none. What is no time in JSON comes by gRPC only.
func timeOf(field string, t *timestamppb.Timestamp) (time.Time, error) {
	switch {
	case t == nil:
		return time.Time{}, nil
	case !t.IsValid():
		return time.Time{}, protocol.NewError(protocol.CodeInvalidArgument, field, field+" must be a time of the years 1 to 9999")
	default:
		return t.AsTime(), nil
	}
}
