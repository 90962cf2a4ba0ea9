package api

import (
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// member is a member on the wire.
type member struct {
	Name      string `json:"name"`
	Role      string `json:"role"`
	Read      int64  `json:"read"`
	Delivered int64  `json:"delivered"`
}

// getMembers pages members in an order of the server's; Next is left out on the last page.
func (s *server) getMembers(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	c, err := s.own(r, id)
	if err != nil {
		return err
	}
	after, limit, err := page(r)
	if err != nil {
		return err
	}
	list, err := s.deps.Conversations.Members(r.Context(), c.ID, after, limit)
	if err != nil {
		return err
	}
	out := struct {
		Members []member `json:"members"`
		Next    string   `json:"next,omitempty"`
	}{Members: make([]member, 0, len(list))}
	for _, m := range list {
		out.Members = append(out.Members, member{Name: m.Name, Role: m.Role.String(), Read: m.Read, Delivered: m.Delivered})
	}
	if len(list) == limit {
		out.Next = list[len(list)-1].ID
	}
	return write(w, http.StatusOK, out)
}

func (s *server) postMembers(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	var in struct {
		Members  []string `json:"members"`
		ClientID string   `json:"client_id"`
	}
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	if len(in.Members) == 0 {
		return protocol.NewError(protocol.CodeInvalidArgument, "members", "members must not be empty")
	}
	if _, err := s.own(r, id); err != nil { // before names of others are looked up
		return err
	}
	members, err := s.members(r.Context(), id, in.Members)
	if err != nil {
		return err
	}
	return s.change(w, r, id, chat.Record{Kind: protocol.EventAdded, ClientID: in.ClientID, Members: members})
}

func (s *server) putMember(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	var in struct {
		Role     string `json:"role"`
		ClientID string `json:"client_id"`
	}
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	role, ok := chat.ParseRole(in.Role)
	if !ok {
		return protocol.NewError(protocol.CodeInvalidArgument, "role", "role must be member, admin or owner")
	}
	whom, err := s.pathMember(r)
	if err != nil {
		return err
	}
	return s.change(w, r, id, chat.Record{Kind: protocol.EventRole, ClientID: in.ClientID, Members: []chat.Member{whom}, Role: role})
}

// deleteMember removes a member; the caller's own name leaves the group.
func (s *server) deleteMember(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	whom, err := s.pathMember(r)
	if err != nil {
		return err
	}
	return s.change(w, r, id, chat.Record{Kind: protocol.EventRemoved, ClientID: r.URL.Query().Get("client_id"), Members: []chat.Member{whom}})
}

func (s *server) patchConversation(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	var in struct {
		Name     string `json:"name"`
		ClientID string `json:"client_id"`
	}
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	return s.change(w, r, id, chat.Record{Kind: protocol.EventRenamed, ClientID: in.ClientID, Name: in.Name})
}

// pathMember is the user whom the path names. Whether it is a member is judged later.
func (s *server) pathMember(r *http.Request) (chat.Member, error) {
	u, err := s.pathUser(r)
	return chat.Member{ID: u.ID, Name: u.Name}, err
}

// change accepts a change of the group of the path. Its client id may be left out; the
// kind before it keeps it apart from those of messages.
func (s *server) change(w http.ResponseWriter, r *http.Request, id account.Identity, record chat.Record) error {
	if record.ClientID == "" {
		fresh, err := uuid.NewV7()
		if err != nil {
			return fmt.Errorf("new client id: %w", err)
		}
		record.ClientID = fresh.String()
	}
	if err := chat.CheckClientID(record.ClientID); err != nil {
		return err
	}
	record.Conversation, record.ClientID = r.PathValue("id"), string(record.Kind)+"."+record.ClientID
	return s.accepted(w, r, func(done func(protocol.Accepted, error)) {
		s.deps.Acceptor.Change(r.Context(), id.User, record, traceID(r), done)
	})
}
