package notify

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// Message is what a hook of format json gets.
type Message struct {
	// Type is group.isolated, group.pinned, group.released, group.limited, group.limit_lifted,
	// policy.rolled_back or settings.rolled_back, or one of these with _recommended behind the verb: see messageOf.
	Type string `json:"type"`
	Data Data   `json:"data"`
}

// Data is the decision, and what a person needs next.
type Data struct {
	Decision decide.Decision `json:"decision"`
	Text     string          `json:"text"`
	Console  string          `json:"console,omitempty"`
	Undo     string          `json:"undo,omitempty"` // a command
	Do       string          `json:"do,omitempty"`   // a command, where nothing was done yet
}

// messageOf says a decision; ok is false where it changed nothing that a person is told:
// of a release step by step only its end.
func messageOf(d decide.Decision, console string) (m Message, ok bool) {
	m.Data = Data{Decision: d, Console: console}
	who := fmt.Sprintf("%s (%s+%s)", d.Group, d.Env, d.Tenant)
	m.Data.Undo = d.Undo
	switch {
	case d.Advice != "":
		m.Type, m.Data.Text = advice(d, who)
		m.Data.Do = "tracegate ctl confirm " + d.ID
	case d.Action == decide.RollBack && d.Group == "":
		m.Type = "policy.rolled_back"
		m.Data.Text = fmt.Sprintf("Policy revision %d was taken back from the edge that had it first, %d is in force", d.Revision.From, d.Revision.To)
	case d.Action == decide.RollBack && d.Revision.Settings != "":
		m.Type = "settings.rolled_back"
		m.Data.Text = fmt.Sprintf("Settings %s revision %d were taken back, %d is in force: group %s became bad by them", d.Revision.Settings, d.Revision.From, d.Revision.To, who)
	case d.Action == decide.RollBack:
		m.Type = "policy.rolled_back"
		m.Data.Text = fmt.Sprintf("Policy revision %d was taken back, %d is in force: group %s became bad by it", d.Revision.From, d.Revision.To, who)
	case d.Action == decide.Shed:
		m.Type = "group.limited"
		m.Data.Text = fmt.Sprintf("Group %s was limited to %d requests a second at each edge, by %s", who, d.Requests, d.By)
	case d.Action == decide.Lift:
		m.Type = "group.limit_lifted"
		m.Data.Text = fmt.Sprintf("Group %s is not limited any more, by %s", who, d.By)
	case d.Action == decide.Release && d.Share > 0 && d.Share < 100:
		return Message{}, false
	case d.Action == decide.Isolate:
		m.Type = "group.isolated"
		m.Data.Text = fmt.Sprintf("Group %s of %s was isolated: %s -> %s, by %s", who, cmp.Or(d.Service, "all services"), d.FromPool, d.ToPool, d.By)
	case d.Action == decide.Pin:
		m.Type = "group.pinned"
		m.Data.Text = fmt.Sprintf("Group %s was pinned to %s for %s, by %s", who, d.ToPool, d.For, d.By)
	case d.Action == decide.Release:
		m.Type = "group.released"
		m.Data.Text = fmt.Sprintf("Group %s was released: %s -> %s, by %s", who, d.FromPool, d.ToPool, d.By)
	default:
		return Message{}, false
	}
	return m, true
}

// advice is what a person should think about.
func advice(d decide.Decision, who string) (kind, text string) {
	switch d.Advice {
	case decide.RollBack:
		if key := d.Revision.Settings; key != "" {
			return "settings.rollback_recommended", fmt.Sprintf("Settings %s revision %d should be taken back for %d: group %s became bad by them", key, d.Revision.From, d.Revision.To, who)
		}
		return "policy.rollback_recommended", fmt.Sprintf("Policy revision %d should be taken back for %d: group %s became bad by it", d.Revision.From, d.Revision.To, who)
	case decide.Shed:
		return "group.limit_recommended", fmt.Sprintf("Group %s should be limited to %d requests a second at each edge", who, d.Requests)
	}
	return "group.isolation_recommended", fmt.Sprintf("Group %s of %s should be isolated from %s", who, cmp.Or(d.Service, "all services"), d.FromPool)
}

// body is the message in a format.
func (m Message) body(format string) ([]byte, error) {
	if format != FormatSlack {
		return json.Marshal(m)
	}
	lines := []string{"*" + escape(m.Data.Text) + "*", escape(m.Data.Decision.Reason)}
	for _, c := range m.Data.Decision.Causes {
		lines = append(lines, "perhaps because "+escape(c))
	}
	if m.Data.Do != "" {
		lines = append(lines, "To do it: `"+m.Data.Do+"`")
	} else {
		lines = append(lines, "Undo: `"+m.Data.Undo+"`")
	}
	if m.Data.Console != "" {
		lines = append(lines, "<"+m.Data.Console+"|Console>")
	}
	return json.Marshal(map[string]string{"text": strings.Join(lines, "\n")})
}

// escape is Slack's: what follows from names and reasons must not become a link.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
