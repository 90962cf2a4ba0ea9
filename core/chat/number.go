package chat

// Reason says why a record can never be stored; it is the label of a counter and a
// header of the dead letter.
type Reason string

// The closed list.
const (
	ReasonUndecodable  Reason = "undecodable"  // DecodeRecord refused it
	ReasonConversation Reason = "conversation" // there is no such conversation
	ReasonNotMember    Reason = "not_member"   // the sender is not in it
	ReasonRefused      Reason = "refused"      // the database refuses the row itself
)

// Reasons is the closed list, for those who want a counter for each.
func Reasons() []Reason {
	return []Reason{ReasonUndecodable, ReasonConversation, ReasonNotMember, ReasonRefused}
}

// Numbered is what becomes of one record of a batch.
type Numbered struct {
	Record
	Seq       int64    // 0 when refused
	Duplicate bool     // stored before, under Seq
	Refused   Reason   // empty when it is stored
	Members   []string // user ids of the conversation's members
}

// State is what the store knows of the conversations of a batch, read under the lock
// that makes the numbers right.
type State struct {
	LastSeq  map[string]int64    // by conversation; missing = no such conversation
	Members  map[string][]string // user ids by conversation
	Existing map[Key]int64       // seq of records that are stored already
}

// Number gives each record of a batch its sequence number, in the order of the batch:
// the next one of its conversation, the one it already has when it is a repetition
// (also of a record earlier in the batch), or none when it is refused. The state is
// not changed.
func Number(records []Record, s State) []Numbered {
	out := make([]Numbered, 0, len(records))
	next := make(map[string]int64, len(s.LastSeq))
	given := make(map[Key]int64)
	for _, r := range records {
		n := Numbered{Record: r, Members: s.Members[r.Conversation]}
		last, exists := s.LastSeq[r.Conversation]
		switch key := r.Key(); {
		case !exists:
			n.Refused = ReasonConversation
		case s.Existing[key] > 0:
			n.Seq, n.Duplicate = s.Existing[key], true
		case given[key] > 0:
			n.Seq, n.Duplicate = given[key], true
		case !contains(n.Members, r.SenderID):
			n.Refused = ReasonNotMember
		default:
			if next[r.Conversation] == 0 {
				next[r.Conversation] = last
			}
			next[r.Conversation]++
			n.Seq = next[r.Conversation]
			given[key] = n.Seq
		}
		out = append(out, n)
	}
	return out
}

func contains(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}
