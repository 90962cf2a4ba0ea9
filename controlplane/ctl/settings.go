package ctl

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/core/protocol"
	"github.com/tracegate/tracegate/mesh/settings"
)

// Settings is what the API needs of settings documents beside the board.
type Settings interface {
	// Revisions are those of a key; nil: it has none.
	Revisions(key string) Revisions
	// Connected notes an instance until leave is called.
	Connected(of settings.Instance) (leave func())
	// Report notes what an instance that is connected answered.
	Report(r ctlapi.SettingsReport)
}

func (a *api) settingsRoutes(v1 *http.ServeMux) {
	v1.HandleFunc("GET "+ctlapi.PathSettings, a.showSettings)
	v1.HandleFunc("GET "+ctlapi.PathSettingsRevisions, a.settingsRevisions)
	v1.HandleFunc("GET "+ctlapi.PathSettingsDocument, a.settingsDocument)
	v1.HandleFunc("PUT "+ctlapi.PathSettingsDocument, a.changes("settings", a.putSettings))
	v1.HandleFunc("GET "+ctlapi.PathSettingsWatch, a.watchSettings)
	v1.HandleFunc("POST "+ctlapi.PathSettingsReports, a.operators(a.report)) // who could say that a document is refused could keep all from having it
}

func (a *api) showSettings(w http.ResponseWriter, _ *http.Request) {
	v, _ := a.board.Read()
	out := v.Settings
	out.Documents, out.Instances = append([]ctlapi.SettingsDocument{}, out.Documents...), append([]ctlapi.SettingsInstance{}, out.Instances...)
	reply(w, out)
}

// settingsKey is the key that a request names.
func settingsKey(r *http.Request) (string, error) {
	key := r.URL.Query().Get("key")
	if _, ok := settings.ServiceOf(key); !ok {
		return "", protocol.NewError(protocol.CodeInvalidArgument, "key", fmt.Sprintf("key: %.100q is none of SERVICE, SERVICE/gray/KEY=VALUE, SERVICE/version/VERSION", key))
	}
	return key, nil
}

func (a *api) settingsHistory(r *http.Request) (Revisions, error) {
	key, err := settingsKey(r)
	if err != nil {
		return nil, err
	}
	if all := a.settings.Revisions(key); all != nil {
		return all, nil
	}
	return nil, protocol.NewError(protocol.CodeNotFound, "key", settings.ErrNoDocument.Error())
}

func (a *api) settingsRevisions(w http.ResponseWriter, r *http.Request) {
	all, err := a.settingsHistory(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	reply(w, append([]ctlapi.Revision{}, all.List()...))
}

func (a *api) settingsDocument(w http.ResponseWriter, r *http.Request) {
	history, err := a.settingsHistory(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	number, _ := strconv.Atoi(r.URL.Query().Get("revision"))
	a.replyRevision(w, r, history, number)
}

// replyRevision answers with a revision and its document.
func (a *api) replyRevision(w http.ResponseWriter, r *http.Request, history Revisions, number int) {
	all := history.List()
	i := slices.IndexFunc(all, func(rev ctlapi.Revision) bool { return rev.Number == number })
	if i < 0 {
		a.fail(w, r, protocol.NewError(protocol.CodeNotFound, "number", "no such revision is kept"))
		return
	}
	document, err := history.Document(number)
	if errors.Is(err, fs.ErrNotExist) {
		err = protocol.NewError(protocol.CodeNotFound, "number", "the revision is not kept any more")
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	reply(w, ctlapi.Document{Revision: &all[i], Document: string(document)})
}

func (a *api) putSettings(w http.ResponseWriter, r *http.Request) (change, error) {
	key, err := settingsKey(r)
	var document []byte
	if err == nil {
		document, err = io.ReadAll(http.MaxBytesReader(w, r.Body, settings.MaxSize))
	}
	return a.settingsChange(r, key, document, tooLarge(err, settings.MaxSize))
}

// settingsChange puts a document that was read, or could not be.
func (a *api) settingsChange(r *http.Request, key string, document []byte, err error) (change, error) {
	by, reason := r.URL.Query().Get("by"), r.URL.Query().Get("reason")
	return change{by: by, reason: reason, digest: digest(document, err), do: func(ctx context.Context, by string) (any, string, error) {
		return nil, "", tooLarge(a.orders.PutSettings(ctx, key, document, by, reason), settings.MaxSize)
	}}, cmp.Or(err, checkWho(by, reason))
}

func checkWho(by, reason string) error {
	switch {
	case len(by) > maxBy:
		return protocol.NewError(protocol.CodeInvalidArgument, "by", "by is longer than "+strconv.Itoa(maxBy)+" bytes")
	case len(reason) > maxText:
		return protocol.NewError(protocol.CodeInvalidArgument, "reason", "reason is longer than "+strconv.Itoa(maxText)+" bytes")
	}
	return nil
}

func tooLarge(err error, most int64) error {
	if large := new(http.MaxBytesError); errors.As(err, &large) {
		return protocol.NewError(protocol.CodeTooLarge, "", fmt.Sprintf("document has more than %d bytes", most))
	}
	return err
}

// watchSettings hands an instance its document, and each other one later.
func (a *api) watchSettings(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	of := settings.Instance{Service: q.Get("service"), Node: q.Get("node"), Version: q.Get("version"), Labels: q["label"]}
	if err := of.Validate(); err != nil {
		a.fail(w, r, protocol.NewError(protocol.CodeInvalidArgument, "", err.Error()))
		return
	}
	keys, said := of.Keys(), false
	var last settings.Document
	leave := func() {}
	defer func() { leave() }()
	a.watch(w, r, a.instances, func(v View) []any {
		if v.Handed == nil {
			return nil // nothing was read yet, neither of this run nor of one before
		}
		if !said {
			leave = a.settings.Connected(of)
		}
		now := documentOf(v.Handed, keys)
		if said && now == last {
			return nil
		}
		last, said = now, true
		return []any{now}
	})
}

// documentOf is the first of the keys that there is a document of.
func documentOf(handed map[string]settings.Document, keys []string) settings.Document {
	for _, key := range keys {
		if d, ok := handed[key]; ok {
			return d
		}
	}
	return settings.Document{}
}

func (a *api) report(w http.ResponseWriter, r *http.Request) {
	var in ctlapi.SettingsReport
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in)
	if err == nil {
		err = in.Of.Validate()
	}
	if err != nil {
		a.fail(w, r, protocol.NewError(protocol.CodeInvalidArgument, "", "body is not the JSON of a report: "+err.Error()))
		return
	}
	a.settings.Report(in)
	w.WriteHeader(http.StatusNoContent)
}
