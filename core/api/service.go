package api

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"github.com/tracegate/tracegate/core/account"
	chatv1 "github.com/tracegate/tracegate/core/protocol/tracegate/chat/v1"
)

// service has the operations of the API as methods, for all transports. Each takes what
// the proto says, asks the part of core that does the work, and gives back what the proto
// says. An error that a client may see is a *protocol.Error.
type service struct {
	*server
	chatv1.UnimplementedAccountServiceServer
	chatv1.UnimplementedBlockServiceServer
	chatv1.UnimplementedConversationServiceServer
	chatv1.UnimplementedFriendServiceServer
	chatv1.UnimplementedMessageServiceServer
	chatv1.UnimplementedSearchServiceServer
	chatv1.UnimplementedSubscriptionServiceServer
}

// attach makes the operations known to a transport.
func (s *service) attach(to grpc.ServiceRegistrar) {
	chatv1.RegisterAccountServiceServer(to, s)
	chatv1.RegisterBlockServiceServer(to, s)
	chatv1.RegisterConversationServiceServer(to, s)
	chatv1.RegisterFriendServiceServer(to, s)
	chatv1.RegisterMessageServiceServer(to, s)
	chatv1.RegisterSearchServiceServer(to, s)
	chatv1.RegisterSubscriptionServiceServer(to, s)
}

func (s *server) getSocket(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	if err := s.deps.Sockets.Upgrade(w, r, s.who(r.Context(), id)); err != nil {
		return err
	}
	s.stillIn(r.Context())
	return nil
}

// stillIn closes the connections of a session that has ended while one was being opened:
// it was not there yet to be closed.
func (s *server) stillIn(ctx context.Context) {
	c := callOf(ctx)
	if s.deps.Accounts.Ended(c.identity.Session) {
		s.deps.Sockets.End(c.identity.User.ID, c.identity.Session)
	}
}

// now is the time as entries have it.
func (s *server) now() time.Time { return s.deps.Now().UTC().Truncate(time.Microsecond) }
