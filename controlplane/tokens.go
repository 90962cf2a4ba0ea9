package controlplane

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/tracegate/tracegate/controlplane/access"
	"github.com/tracegate/tracegate/controlplane/ctl/ctlapi"
	"github.com/tracegate/tracegate/controlplane/source"
)

// tokens are the named tokens of the control API as they were last good. The loop writes
// them, handlers of the API read them. It is safe for concurrent use.
type tokens struct {
	file string

	mu  sync.Mutex
	set access.Set
}

// newTokens reads the file before anybody asks. One that cannot be read lets nobody in;
// what is wrong with it is said by the loop, which reads it again.
func newTokens(file string) *tokens {
	t := &tokens{file: file}
	if data, err := os.ReadFile(file); file != "" && err == nil && len(data) <= access.MaxSize {
		all, _ := access.Parse(data)
		t.replace(all)
	}
	return t
}

func (t *tokens) now() access.Set {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set
}

func (t *tokens) replace(all []access.Token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set = access.NewSet(all...)
}

// run watches the file.
func (t *tokens) run(ctx context.Context, out chan<- source.Update[[]access.Token]) error {
	if t.file == "" {
		<-ctx.Done()
		return nil
	}
	return source.File[[]access.Token]{Path: t.file, Parse: access.Parse, MaxSize: access.MaxSize}.Run(ctx, out)
}

// readTokens takes tokens over. A file with a mistake leaves those before; without a file
// there are none, so that taking it away shuts out everybody who is in it.
func (l *loop) readTokens(u source.Update[[]access.Token]) {
	const name = "tokens"
	if errors.Is(u.Err, fs.ErrNotExist) {
		delete(l.sources, name)
		l.metrics.sourceError.WithLabelValues(name).Set(0)
		l.tokens.replace(nil)
		return
	}
	if _, shown := l.sources[name]; !shown {
		l.sources[name] = ctlapi.Source{File: l.cfg.Tokens}
	}
	if l.read(name, u.Err) {
		l.tokens.replace(u.Value)
	}
}
