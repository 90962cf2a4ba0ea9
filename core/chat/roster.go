package chat

import (
	"cmp"
	"slices"
)

// Role is what a member may do in a group; a higher one may all that a lower one may.
// In a direct conversation everybody is RoleMember.
type Role uint8

// The roles. A group has one owner.
const (
	RoleMember Role = iota // reads and writes, may leave
	RoleAdmin              // adds, removes members, renames, opens, closes, recalls
	RoleOwner              // gives roles; may leave when nobody else is there
)

var roleNames = [...]string{"member", "admin", "owner"}

func (r Role) String() string { return roleNames[min(int(r), len(roleNames)-1)] }

// ParseRole is the inverse of String.
func ParseRole(name string) (Role, bool) {
	i := slices.Index(roleNames[:], name)
	return Role(max(i, 0)), i >= 0
}

// Member is somebody in a conversation.
type Member struct {
	ID, Name string
	Role     Role
	Joined   int64 // seq of the entry from which on it is a member, without a break; 0: of a direct conversation
}

// Roster is who is in a conversation. It is never changed, only replaced, so that it
// may be shared. Version is the seq of the entry that made it: two rosters of one
// conversation with one version are the same.
type Roster struct {
	Group   bool
	Version int64
	Members []Member // by ID
}

// NewRoster takes the members in any order, and keeps the slice.
func NewRoster(group bool, version int64, members []Member) *Roster {
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return &Roster{Group: group, Version: version, Members: members}
}

// Find returns a member.
func (r *Roster) Find(userID string) (Member, bool) {
	i, ok := r.find(userID)
	if !ok {
		return Member{}, false
	}
	return r.Members[i], true
}

func (r *Roster) find(userID string) (int, bool) {
	return slices.BinarySearchFunc(r.Members, userID, func(m Member, id string) int { return cmp.Compare(m.ID, id) })
}

// with is the roster in which members are there with the roles that they bring along. Those
// who were not have joined with it.
func (r *Roster) with(version int64, members ...Member) *Roster {
	out := &Roster{Group: r.Group, Version: version, Members: slices.Grow(slices.Clone(r.Members), len(members))}
	for _, m := range members {
		if i, ok := out.find(m.ID); ok {
			out.Members[i] = m
		} else {
			m.Joined = version
			out.Members = slices.Insert(out.Members, i, m)
		}
	}
	return out
}

// without is the roster without a member.
func (r *Roster) without(version int64, userID string) *Roster {
	out := &Roster{Group: r.Group, Version: version, Members: slices.Clone(r.Members)}
	out.Members = slices.DeleteFunc(out.Members, func(m Member) bool { return m.ID == userID })
	return out
}
