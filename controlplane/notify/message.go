package notify

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tracegate/tracegate/controlplane/decide"
)

// Message is what a hook of format json gets.
type Message struct {
	Type string `json:"type"` // "group.isolated", "group.released" or "group.isolation_recommended"
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

// messageOf says a decision; ok is false where it changed nothing.
func messageOf(d decide.Decision, console string) (m Message, ok bool) {
	m.Data = Data{Decision: d, Console: console}
	who := fmt.Sprintf("%s (%s+%s)", d.Group, d.Env, d.Tenant)
	switch {
	case d.Advice == decide.Isolate:
		m.Type = "group.isolation_recommended"
		m.Data.Text = fmt.Sprintf("Group %s of %s should be isolated from %s", who, cmp.Or(d.Service, "all services"), d.FromPool)
		m.Data.Do = "tracegate ctl isolate " + string(d.Group) + " --reason recommended"
	case d.Action == decide.Isolate:
		m.Type = "group.isolated"
		m.Data.Text = fmt.Sprintf("Group %s of %s was isolated: %s -> %s, by %s", who, cmp.Or(d.Service, "all services"), d.FromPool, d.ToPool, d.By)
		m.Data.Undo = "tracegate ctl release " + string(d.Group)
	case d.Action == decide.Release:
		m.Type = "group.released"
		m.Data.Text = fmt.Sprintf("Group %s was released: %s -> %s, by %s", who, d.FromPool, d.ToPool, d.By)
		m.Data.Undo = "tracegate ctl isolate " + string(d.Group)
	default:
		return Message{}, false
	}
	return m, true
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

// sign is the webhook-signature of Standard Webhooks 1.0, "Signature scheme", with a
// symmetric key: HMAC-SHA256 of id, time and body.
func sign(key []byte, id string, at time.Time, body []byte) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
	h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}
