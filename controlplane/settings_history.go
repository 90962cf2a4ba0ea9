package controlplane

import (
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/tracegate/tracegate/controlplane/ctl"
	"github.com/tracegate/tracegate/controlplane/history"
	"github.com/tracegate/tracegate/mesh/settings"
)

// histories are the revisions of settings documents, a folder a key. It is safe for
// concurrent use.
type histories struct {
	dir string

	mu  sync.Mutex
	all map[string]*history.Log
}

func openHistories(dir string, log *slog.Logger) (*histories, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create folder of settings: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list settings: %w", err)
	}
	h := &histories{dir: dir, all: map[string]*history.Log{}}
	for _, e := range entries {
		key, err := url.PathUnescape(e.Name())
		if _, ok := settings.ServiceOf(key); err != nil || !ok || !e.IsDir() {
			continue // not ours
		}
		l, damaged, err := history.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		for _, err := range damaged {
			log.Error("a revision of settings is lost", "key", key, "error", err)
		}
		h.all[key] = l
	}
	return h, nil
}

// of is the history of a key, made where there is none.
func (h *histories) of(key string) (*history.Log, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.all[key]; l != nil {
		return l, nil
	}
	l, _, err := history.Open(filepath.Join(h.dir, url.PathEscape(key)))
	if err != nil {
		return nil, err
	}
	h.all[key] = l
	return l, nil
}

func (h *histories) keys() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for key := range h.all {
		out = append(out, key)
	}
	return out
}

// Revisions is [ctl.Settings]'s.
func (h *histories) Revisions(key string) ctl.Revisions {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l := h.all[key]; l != nil {
		return l
	}
	return nil
}
