package ctlapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tracegate/tracegate/mesh/settings"
)

// Paths about settings of services (mesh/settings). A document is named by the query "key".
const (
	PathSettings          = "/v1/settings"
	PathSettingsDocument  = "/v1/settings/document"
	PathSettingsRevisions = "/v1/settings/revisions"
	PathSettingsWatch     = "/v1/settings/watch"
	PathSettingsReports   = "/v1/settings/reports"
)

// Settings are all documents and who has them.
type Settings struct {
	Documents []SettingsDocument `json:"documents"` // by key
	Instances []SettingsInstance `json:"instances"` // that are connected, by service and node
}

// SettingsDocument is the newest of a key, and what instances are handed.
type SettingsDocument struct {
	Key    string   `json:"key"`
	Newest Revision `json:"newest"`
	// Handed is the revision that instances are given; 0: none. It is another than Newest
	// where that was refused or taken back.
	Handed     int         `json:"handed"`
	RolledBack *RolledBack `json:"rolled_back,omitzero"`
}

// SettingsInstance is a process that asks for its settings.
type SettingsInstance struct {
	settings.Instance
	Since    time.Time `json:"since"`              // it is connected
	Key      string    `json:"key,omitempty"`      // of the document that it last answered to; empty: of none
	Revision int       `json:"revision,omitempty"` // of that
	Digest   string    `json:"digest,omitempty"`   // of that
	Answered bool      `json:"answered"`           // it has answered since it is connected
	Refused  string    `json:"refused,omitempty"`  // why that is not in force, and the one before is
}

// SettingsReport is an instance's answer to a document that it was handed.
type SettingsReport struct {
	Of       settings.Instance `json:"of"`
	Document settings.Document `json:"document"`          // without its text
	Refused  string            `json:"refused,omitempty"` // why; empty: it is in force
}

// Settings are all documents and who has them.
func (c *Client) Settings(ctx context.Context) (Settings, error) {
	var out Settings
	return out, c.call(ctx, http.MethodGet, PathSettings, nil, &out)
}

// PutSettings replaces the document of a key, if the whole of it is valid; an empty one
// removes it. It returns when that is kept, before instances have it.
func (c *Client) PutSettings(ctx context.Context, key string, document []byte, by, reason string) error {
	q := url.Values{"key": {key}, "by": {by}, "reason": {reason}}
	return c.call(ctx, http.MethodPut, PathSettingsDocument+"?"+q.Encode(), document, nil)
}

// SettingsRevisions are those of a key that are kept, newest first.
func (c *Client) SettingsRevisions(ctx context.Context, key string) ([]Revision, error) {
	var out []Revision
	return out, c.call(ctx, http.MethodGet, PathSettingsRevisions+"?"+url.Values{"key": {key}}.Encode(), nil, &out)
}

// SettingsRevision is one of them with its document.
func (c *Client) SettingsRevision(ctx context.Context, key string, number int) (Document, error) {
	var out Document
	return out, c.call(ctx, http.MethodGet, PathSettingsDocument+"?"+url.Values{"key": {key}, "revision": {strconv.Itoa(number)}}.Encode(), nil, &out)
}

// WatchSettings is [settings.Source]: what each returns is reported. While the control
// plane is away the instance goes on with what it has.
func (c *Client) WatchSettings(ctx context.Context, of settings.Instance, each func(settings.Document) error) error {
	q := url.Values{"service": {of.Service}, "node": {of.Node}, "version": {of.Version}, "label": of.Labels}
	return c.watch(ctx, PathSettingsWatch+"?"+q.Encode(), func(line []byte) error {
		var d settings.Document
		if err := json.Unmarshal(line, &d); err != nil {
			return fmt.Errorf("decode settings: %w", err)
		}
		r := SettingsReport{Of: of}
		if err := each(d); err != nil {
			r.Refused = clip(err.Error())
		}
		d.Text = ""
		r.Document = d
		body, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("encode report: %w", err)
		}
		return c.call(ctx, http.MethodPost, PathSettingsReports, body, nil)
	})
}

// maxRefused bounds why a document is refused, in bytes.
const maxRefused = 2000

func clip(s string) string { return s[:min(len(s), maxRefused)] }
