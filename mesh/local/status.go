package local

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// State is where a part is in its life.
type State string

// The states.
const (
	Pending    State = "pending"
	Starting   State = "starting"
	Running    State = "running"
	Restarting State = "restarting"
	Stopping   State = "stopping"
	Stopped    State = "stopped"
)

// PartStatus is what is known of one part.
type PartStatus struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid,omitempty"` // of the running process
	State    State     `json:"state"`
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since,omitzero"` // when it last became ready
}

// Status is the state of all parts, in start order. The supervisor keeps it in
// Config.StatusFile, replaced atomically at each change.
type Status struct {
	Supervisor int          `json:"supervisor"` // process id
	Parts      []PartStatus `json:"parts"`
}

// ReadStatus reads a status file.
func ReadStatus(file string) (Status, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	var s Status
	if err := json.Unmarshal(raw, &s); err != nil {
		return Status{}, fmt.Errorf("parse %s: %w", file, err)
	}
	return s, nil
}

// Part returns the status of the named part; ok is false where there is none.
func (s Status) Part(name string) (PartStatus, bool) {
	for _, p := range s.Parts {
		if p.Name == name {
			return p, true
		}
	}
	return PartStatus{}, false
}

// board holds the status for the keepers, which write each their own part.
type board struct {
	file string
	log  *slog.Logger

	mu    sync.Mutex
	state Status
}

func newBoard(file string, parts []Part, log *slog.Logger) *board {
	b := &board{file: file, log: log, state: Status{Supervisor: os.Getpid()}}
	for _, p := range parts {
		b.state.Parts = append(b.state.Parts, PartStatus{Name: p.Name, State: Pending})
	}
	return b
}

func (b *board) get(name string) PartStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, _ := b.state.Part(name)
	return p
}

func (b *board) set(name string, change func(*PartStatus)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.state.Parts {
		if b.state.Parts[i].Name == name {
			change(&b.state.Parts[i])
		}
	}
	b.write()
}

func (b *board) write() {
	if b.file == "" {
		return
	}
	if err := writeAtomic(b.file, b.state); err != nil {
		b.log.Warn("status file not written", "error", err)
	}
}

// add is false where the name is taken.
func (b *board) add(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, taken := b.state.Part(name); taken {
		return false
	}
	b.state.Parts = append(b.state.Parts, PartStatus{Name: name, State: Pending})
	return true
}

func (b *board) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Parts = slices.DeleteFunc(b.state.Parts, func(p PartStatus) bool { return p.Name == name })
	b.write()
}

func writeAtomic(file string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("create status: %w", err)
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(raw); err != nil {
		tmp.Close()
		return fmt.Errorf("write status: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("close status: %w", err)
	}
	return os.Rename(tmp.Name(), file)
}
