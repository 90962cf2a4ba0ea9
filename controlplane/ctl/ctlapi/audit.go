package ctlapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// PathAudit is where the record of changing requests is read.
const PathAudit = "/v1/audit"

// MaxAudit is how many records one answer has at most.
const MaxAudit = 1000

// Outcomes of a request beside the codes of errors.
const (
	OutcomeDone    = "done"
	OutcomeUnknown = "" // the control plane ended while it was carried out
)

// AuditRecord is one request that changes something, or would have. It has neither tokens
// nor documents.
type AuditRecord struct {
	ID     string    `json:"id"`
	Time   time.Time `json:"time"`
	Who    string    `json:"who"`          // name of the token; "webhook" of a signed update
	Role   string    `json:"role"`         // of the token
	By     string    `json:"by,omitempty"` // who that is, as they say themselves: of the console, the name of its login
	Remote string    `json:"remote"`       // address that asked; of the console, the console's
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Action string    `json:"action"`           // isolate, release, pin, shed, confirm, policy, settings, drain, undrain
	Target string    `json:"target,omitempty"` // group, decision, key of settings, SERVICE/POOL/INSTANCE
	Reason string    `json:"reason,omitempty"`
	Digest string    `json:"digest,omitempty"` // of the document, as in [Revision]

	Outcome string `json:"outcome"`        // [OutcomeDone], the code of an error, or [OutcomeUnknown]
	Made    string `json:"made,omitempty"` // id of the decision that came of it
}

// AuditQuery says which records are asked for.
type AuditQuery struct {
	Since time.Time // zero: from the first that is remembered
	Who   string    // [AuditRecord.Who] or By; empty: everybody
	Limit int       // 1 to MaxAudit
}

// Audit are the records of changing requests, newest first.
func (c *Client) Audit(ctx context.Context, q AuditQuery) ([]AuditRecord, error) {
	v := url.Values{"limit": {strconv.Itoa(q.Limit)}}
	setSince(v, q.Since)
	if q.Who != "" {
		v.Set("who", q.Who)
	}
	var out []AuditRecord
	return out, c.call(ctx, http.MethodGet, PathAudit+"?"+v.Encode(), nil, &out)
}

func setSince(v url.Values, since time.Time) {
	if !since.IsZero() {
		v.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
}
