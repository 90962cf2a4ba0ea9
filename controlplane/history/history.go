// Package history keeps the policies that were in force: who brought each, when, and
// what edges said to it, so that an operator can look back, compare and go back.
//
// A revision is one file (controlplane/durable) in a folder of their own: a damaged one
// is lost alone, and a document can be read without the others. The alternative, one
// growing journal, lost: documents are large and old ones must go. It decides nothing;
// controlplane writes it, readers may be others.
package history

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/durable"
)

// Keep is how many revisions are kept; the oldest goes first.
const Keep = 100

// saved is the file of one revision.
type saved struct {
	Revision ctlapi.Revision `json:"revision"`
	Document []byte          `json:"document"`
}

// Log is the revisions of one folder. It is safe for concurrent use.
type Log struct {
	dir string

	mu        sync.Mutex
	revisions []ctlapi.Revision // oldest first
	newest    []byte            // document of the last
	announced announcement
}

// announcement says who brings a document that is about to be read.
type announcement struct {
	digest, by, reason string
	found              bool // and not brought: it says nothing of what is wanted once more
}

// Open reads the folder, and makes it. damaged are files that cannot be read.
func Open(dir string) (l *Log, damaged []error, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("create folder of revisions: %w", err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, nil, fmt.Errorf("list revisions: %w", err)
	}
	l = &Log{dir: dir}
	for _, name := range slices.Sorted(slices.Values(names)) { // as their numbers, see path
		if _, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(name), ".json")); err != nil {
			continue // not ours
		}
		var s saved
		if err := durable.Load(name, &s); err != nil {
			damaged = append(damaged, err)
			continue
		}
		l.revisions, l.newest = append(l.revisions, s.Revision), s.Document
	}
	return l, damaged, nil
}

// Announce says who brings the document that will be read next.
func (l *Log) Announce(document []byte, by, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.announced = announcement{digest: ctlapi.DigestOf(document), by: by, reason: reason}
}

// Suggest is Announce by who only found the document: whoever announced the same one
// before is right.
func (l *Log) Suggest(document []byte, by, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := ctlapi.DigestOf(document); l.announced.digest != d {
		l.announced = announcement{digest: d, by: by, reason: reason, found: true}
	}
}

// Add makes a revision of a valid document, unless it is the newest one again.
func (l *Log) Add(document []byte, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.revisions)
	if n > 0 && bytes.Equal(l.newest, document) && l.revisions[n-1].State != ctlapi.RevisionInvalid && l.revisions[n-1].State != ctlapi.RevisionRolledBack {
		return nil
	}
	r := ctlapi.Revision{Number: 1, Time: now, By: "file", Digest: ctlapi.DigestOf(document), Size: len(document), State: ctlapi.RevisionPending}
	if n > 0 {
		r.Number = l.revisions[n-1].Number + 1
	}
	if l.announced.digest == r.Digest {
		r.By, r.Reason = l.announced.by, l.announced.reason
	}
	l.announced = announcement{}
	if err := l.write(saved{r, document}); err != nil {
		return err
	}
	l.revisions, l.newest = append(l.revisions, r), bytes.Clone(document)
	return l.prune()
}

// prune removes the oldest, first of those that were never in force; the one that is
// stays.
func (l *Log) prune() error {
	for _, goes := range []func(ctlapi.Revision) bool{useless, func(r ctlapi.Revision) bool { return !inForce(r) }} {
		if err := l.remove(goes); err != nil {
			return err
		}
	}
	return nil
}

func inForce(r ctlapi.Revision) bool {
	return r.State == ctlapi.RevisionInForce || r.State == ctlapi.RevisionPartly
}

func useless(r ctlapi.Revision) bool {
	return r.State == ctlapi.RevisionInvalid || r.State == ctlapi.RevisionRefused
}

func (l *Log) remove(goes func(ctlapi.Revision) bool) error {
	for i := 0; len(l.revisions) > Keep && i < len(l.revisions)-1; {
		r := l.revisions[i]
		if !goes(r) {
			i++
			continue
		}
		if err := os.Remove(l.path(r.Number)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove revision: %w", err)
		}
		l.revisions = slices.Delete(l.revisions, i, i+1)
	}
	return nil
}

// InForce notes that every edge has acknowledged the document, but for what without
// says, if anything; what was in force before is superseded.
func (l *Log) InForce(document []byte, now time.Time, without string) error {
	state := ctlapi.RevisionInForce
	if without != "" {
		state = ctlapi.RevisionPartly
	}
	return l.mark(document, func(r *ctlapi.Revision) { r.State, r.Why, r.Since = state, without, now })
}

// Invalid keeps a document that could not be used at all, and why. The next one that
// is invalid too takes its place: whoever edits a file in place saves many.
func (l *Log) Invalid(document []byte, now time.Time, why string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.revisions)
	r := ctlapi.Revision{Number: 1, Time: now, By: "file", Digest: ctlapi.DigestOf(document), Size: len(document), State: ctlapi.RevisionInvalid, Why: why}
	if l.announced.digest == r.Digest {
		r.By, r.Reason = l.announced.by, l.announced.reason
	}
	l.announced = announcement{}
	replaces := n > 0 && l.revisions[n-1].State == ctlapi.RevisionInvalid
	switch {
	case replaces:
		r.Number = l.revisions[n-1].Number
	case n > 0:
		r.Number = l.revisions[n-1].Number + 1
	}
	if err := l.write(saved{r, document}); err != nil {
		return err
	}
	if replaces {
		l.revisions = l.revisions[:n-1]
	}
	l.revisions = append(l.revisions, r)
	return l.prune()
}

// OnTrial notes that one edge has the document and the others have not.
func (l *Log) OnTrial(document []byte, why string) error {
	return l.mark(document, func(r *ctlapi.Revision) { r.State, r.Why = ctlapi.RevisionTrial, why })
}

// Trial is the document that is on trial, or was when the process that tried it ended.
func (l *Log) Trial() (document []byte, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range slices.Backward(l.revisions) {
		if r.State == ctlapi.RevisionTrial {
			document, err := l.Document(r.Number)
			return document, err == nil
		}
	}
	return nil, false
}

// Proven says whether the document was in force once, and was not taken back from it.
func (l *Log) Proven(document []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := ctlapi.DigestOf(document)
	return slices.ContainsFunc(l.revisions, func(r ctlapi.Revision) bool {
		return r.Digest == d && !r.Since.IsZero() && (inForce(r) || r.State == ctlapi.RevisionSuperseded)
	})
}

// Refused notes that an edge refused the document.
func (l *Log) Refused(document []byte, why string) error {
	return l.mark(document, func(r *ctlapi.Revision) { r.State, r.Why = ctlapi.RevisionRefused, why })
}

// RolledBack notes that the document was taken back for the revision to.
func (l *Log) RolledBack(document []byte, to int, why string) error {
	return l.mark(document, func(r *ctlapi.Revision) { r.State, r.Why, r.BackTo = ctlapi.RevisionRolledBack, why, to })
}

// WasRolledBack is the newest revision of the document, where that was taken back and
// nobody brings it once more.
func (l *Log) WasRolledBack(document []byte) (ctlapi.Revision, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := ctlapi.DigestOf(document)
	if l.announced.digest == d && !l.announced.found {
		return ctlapi.Revision{}, false
	}
	for _, r := range slices.Backward(l.revisions) {
		if r.Digest == d {
			return r, r.State == ctlapi.RevisionRolledBack
		}
	}
	return ctlapi.Revision{}, false
}

// Number is the newest revision of the document; 0: it is not kept.
func (l *Log) Number(document []byte) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := ctlapi.DigestOf(document)
	for _, r := range slices.Backward(l.revisions) {
		if r.Digest == d {
			return r.Number
		}
	}
	return 0
}

func (l *Log) mark(document []byte, change func(*ctlapi.Revision)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := ctlapi.DigestOf(document)
	i := len(l.revisions) - 1
	for i >= 0 && l.revisions[i].Digest != d {
		i--
	}
	if i < 0 {
		return nil // older than what is kept
	}
	next := l.revisions[i]
	change(&next)
	if next.State == l.revisions[i].State && next.Why == l.revisions[i].Why {
		return nil
	}
	if inForce(next) {
		if err := l.supersede(i); err != nil {
			return err
		}
	}
	return l.replace(i, next)
}

// supersede ends what was in force, or should have been, before revision i is.
func (l *Log) supersede(i int) error {
	for j, r := range l.revisions {
		open := r.State == ctlapi.RevisionPending || r.State == ctlapi.RevisionTrial
		if j == i || !inForce(r) && (!open || j > i) {
			continue
		}
		r.State = ctlapi.RevisionSuperseded
		if err := l.replace(j, r); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) replace(i int, r ctlapi.Revision) error {
	var s saved
	if err := durable.Load(l.path(r.Number), &s); err != nil {
		return err
	}
	s.Revision = r
	if err := l.write(s); err != nil {
		return err
	}
	l.revisions[i] = r
	return nil
}

func (l *Log) write(s saved) error {
	if err := durable.Save(l.path(s.Revision.Number), s); err != nil {
		return fmt.Errorf("keep revision: %w", err)
	}
	return nil
}

// List is all revisions, newest first.
func (l *Log) List() []ctlapi.Revision {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Clone(l.revisions)
	slices.Reverse(out)
	return out
}

// Document is the policy of a revision. Its error is fs.ErrNotExist where it is not kept.
func (l *Log) Document(number int) ([]byte, error) {
	var s saved
	if err := durable.Load(l.path(number), &s); err != nil {
		return nil, err
	}
	return s.Document, nil
}

func (l *Log) path(number int) string {
	return filepath.Join(l.dir, fmt.Sprintf("%08d.json", number))
}
