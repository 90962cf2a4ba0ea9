package api

import (
	"errors"
	"net/http"

	"github.com/tracegate/tracegate/core/account"
	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// maxBlocks is how many others a user may block.
const maxBlocks = 10_000

// putBlock keeps a user from sending to the caller in their direct conversation and from
// adding it to groups.
func (s *server) putBlock(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	u, err := s.pathUser(r)
	if err != nil {
		return err
	}
	if u.ID == id.User.ID {
		return protocol.NewError(protocol.CodeInvalidArgument, "name", "name must be someone else")
	}
	err = s.deps.Blocks.Block(r.Context(), id.User.ID, u.ID, maxBlocks, s.now())
	if err != nil {
		if errors.Is(err, chat.ErrLimit) {
			return protocol.NewError(protocol.CodePermissionDenied, "name", "you block too many users")
		}
		return creation(err, "name")
	}
	return write(w, http.StatusOK, map[string]string{"name": u.Name})
}

func (s *server) deleteBlock(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	u, err := s.pathUser(r)
	if err != nil {
		return err
	}
	if err := s.deps.Blocks.Unblock(r.Context(), id.User.ID, u.ID); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// pathUser is the user whom the path names.
func (s *server) pathUser(r *http.Request) (chat.User, error) {
	name := r.PathValue("name")
	if err := chat.CheckName("name", name); err != nil {
		return chat.User{}, err
	}
	u, err := s.deps.Conversations.User(r.Context(), name)
	if errors.Is(err, chat.ErrNotFound) {
		return u, protocol.NewError(protocol.CodeNotFound, "name", "there is no such user")
	}
	return u, err
}

func (s *server) getBlocks(w http.ResponseWriter, r *http.Request, id account.Identity) error {
	after, limit, err := page(r)
	if err != nil {
		return err
	}
	list, err := s.deps.Blocks.Blocks(r.Context(), id.User.ID, after, limit)
	if err != nil {
		return err
	}
	out := struct {
		Names []string `json:"names"`
		Next  string   `json:"next,omitempty"`
	}{Names: make([]string, 0, len(list))}
	for _, u := range list {
		out.Names = append(out.Names, u.Name)
	}
	if len(list) == limit {
		out.Next = list[len(list)-1].ID
	}
	return write(w, http.StatusOK, out)
}

// page reads where a page of a list begins, and how long it is at most.
func page(r *http.Request) (after string, limit int, err error) {
	n, err := number(r, "limit", defaultPage, 1, maxPage)
	if err != nil {
		return "", 0, err
	}
	after = r.URL.Query().Get("after")
	if after != "" && chat.CheckConversationID("after", after) != nil {
		return "", 0, protocol.NewError(protocol.CodeInvalidArgument, "after", "after must be the next of a page")
	}
	return after, int(n), nil
}
