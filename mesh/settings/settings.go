// Package settings is the part of a service's configuration that changes while it runs.
//
// A service starts with a configuration of its own. A settings document says what of it
// shall be otherwise; each document is whole, so what it is silent about is as the service
// started with. Documents have keys:
//
//	SERVICE                   for every instance
//	SERVICE/gray/KEY=VALUE    for those that have the label, such as env=staging
//	SERVICE/version/VERSION   for those that run the version
//
// and the last of these that is there and fits an instance is its only one.
//
// The control plane is the one place that receives documents (from files, etcd, people and
// signed messages), checks them, keeps who brought each and what became of it, and hands
// each instance its own by a stream (a [Source]). An instance says of each document
// whether it is in force; one that it refuses leaves the one before in force, there and,
// as the control plane goes back to it, everywhere.
//
// The alternatives that lost: each instance reads etcd by itself - then a bad document
// reaches all of them before anybody has checked it, taking it back means to write over
// what somebody else owns, every instance needs a password of etcd, and one machine needs
// an etcd. And viper's own watch of a file: its goroutine cannot be ended, and it reads
// files that are half written.
//
// The package is a leaf: it knows neither HTTP nor etcd. Its users are services (core) and
// controlplane.
package settings

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Instance is one process that asks for its document.
type Instance struct {
	Service string   `json:"service"`
	Node    string   `json:"node"` // unique among the service's instances
	Version string   `json:"version,omitempty"`
	Labels  []string `json:"labels,omitempty"` // "env=staging", the most important first
}

// Document is what an instance is handed. Its zero value says that there is none: what
// the instance started with is in force.
type Document struct {
	Key      string `json:"key,omitempty"`
	Revision int    `json:"revision,omitempty"` // of the key
	Digest   string `json:"digest,omitempty"`
	Text     string `json:"text,omitempty"`
}

// Source hands an instance its documents.
type Source interface {
	// WatchSettings calls each with the present document and with every other one later, one
	// at a time, until ctx is done. What each returns is why the document is not in force. A
	// document may come again.
	WatchSettings(ctx context.Context, of Instance, each func(Document) error) error
}

// The bounds of documents and of who asks for them.
const (
	MaxSize   = 64 << 10 // of a document, bytes
	MaxLabels = 16       // of an instance
)

const (
	gray    = "/gray/"
	version = "/version/"
)

// Keys are those of the documents that concern an instance, the one that wins first.
func (i Instance) Keys() []string {
	var out []string
	if i.Version != "" {
		out = append(out, i.Service+version+i.Version)
	}
	for _, l := range i.Labels {
		out = append(out, i.Service+gray+l)
	}
	return append(out, i.Service)
}

var (
	serviceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	versionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)
	labelName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}=[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	nodeName    = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
)

// Validate names the field that cannot be.
func (i Instance) Validate() error {
	switch {
	case !serviceName.MatchString(i.Service):
		return fmt.Errorf("service: %.64q is not 1 to 40 lower-case letters, digits and inner hyphens", i.Service)
	case !nodeName.MatchString(i.Node):
		return fmt.Errorf("node: %.64q is not 1 to 128 letters, digits and . _ : -", i.Node)
	case i.Version != "" && !versionName.MatchString(i.Version):
		return fmt.Errorf("version: %.64q is not 1 to 64 letters, digits and . _ + -", i.Version)
	case len(i.Labels) > MaxLabels:
		return fmt.Errorf("labels: %d, more than %d", len(i.Labels), MaxLabels)
	}
	for n, l := range i.Labels {
		if !labelName.MatchString(l) {
			return fmt.Errorf("labels[%d]: %.64q is not KEY=VALUE", n, l)
		}
	}
	return nil
}

// ServiceOf is the service that a key is about; ok is false where it is no key.
func ServiceOf(key string) (service string, ok bool) {
	service, _, _ = strings.Cut(key, "/")
	rest := key[len(service):]
	if !serviceName.MatchString(service) {
		return "", false
	}
	if label, is := strings.CutPrefix(rest, gray); is {
		return service, labelName.MatchString(label)
	}
	if v, is := strings.CutPrefix(rest, version); is {
		return service, versionName.MatchString(v)
	}
	return service, rest == ""
}

// Name says which document it is: "core/gray/env=staging revision 3".
func (d Document) Name() string {
	if d.Key == "" {
		return "none"
	}
	return fmt.Sprintf("%s revision %d", d.Key, d.Revision)
}

// ErrNoDocument is of who asks for a document by a key that has none.
var ErrNoDocument = errors.New("no document has this key")

// Comment is what a line such as "# author: ann" among the first ones says.
func Comment(document []byte, key string) string {
	for line := range strings.SplitSeq(string(document[:min(len(document), 1024)]), "\n") {
		rest, ok := strings.CutPrefix(line, "#")
		if !ok {
			return ""
		}
		if value, ok := strings.CutPrefix(strings.TrimSpace(rest), key+":"); ok {
			value = strings.TrimSpace(value)
			return strings.ToValidUTF8(value[:min(len(value), 200)], "")
		}
	}
	return ""
}
