package envoy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// logFormat makes Envoy write one line a message: level, logger, message with
// escaped line ends, separated by tabs.
const logFormat = "%l\t%n\t%_"

// LevelCritical is Envoy's level above error: it cannot go on.
const LevelCritical = slog.LevelError + 4

// parseLine is the inverse of logFormat. A line of another form (a crash trace, a
// sanitizer) is a warning.
func parseLine(line string) (level slog.Level, logger, message string) {
	l, rest, ok := strings.Cut(line, "\t")
	logger, message, ok2 := strings.Cut(rest, "\t")
	if !ok || !ok2 {
		return slog.LevelWarn, "", line
	}
	switch l {
	case "trace", "debug":
		return slog.LevelDebug, logger, message
	case "info":
		return slog.LevelInfo, logger, message
	case "warning":
		return slog.LevelWarn, logger, message
	case "error":
		return slog.LevelError, logger, message
	case "critical":
		return LevelCritical, logger, message
	}
	return slog.LevelWarn, "", line
}

// maxLine bounds what is kept of one line of Envoy's log.
const maxLine = 16 << 10

// copyLog passes Envoy's log on until r ends. It always reads to the end: a full
// pipe would stop Envoy.
func copyLog(r io.Reader, log *slog.Logger, last *lastError) {
	br := bufio.NewReaderSize(r, maxLine)
	seen := sampler{}
	for {
		line, err := br.ReadSlice('\n')
		if text := strings.TrimRight(string(line), "\r\n"); text != "" {
			passLine(text, log, seen, last)
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a line too long
			_, err = br.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

func passLine(line string, log *slog.Logger, seen sampler, last *lastError) {
	level, logger, message := parseLine(line)
	if level >= slog.LevelError {
		last.set(message)
	}
	if level <= slog.LevelInfo {
		level = slog.LevelDebug // what Envoy calls info is its own start-up, line by line
		if strings.HasPrefix(message, "  ") {
			return // its list of extensions
		}
	}
	if ok, dropped := seen.pass(message, time.Now()); ok {
		//nolint:sloglint // the message is Envoy's own
		log.Log(context.Background(), level, message, "logger", logger, "dropped", dropped)
	}
}

// sampler lets a message through once in a while: an Envoy that rejects a
// configuration, or warns of a field, says so with every try.
type sampler map[string]sample

type sample struct {
	passed  time.Time
	dropped int
}

const (
	sampleEvery = 10 * time.Second
	sampleMost  = 256 // messages that are told apart
)

// pass says whether the message goes on, and how many like it did not since the
// last one that did.
func (s sampler) pass(message string, now time.Time) (ok bool, dropped int) {
	last, known := s[message]
	if known && now.Sub(last.passed) < sampleEvery {
		last.dropped++
		s[message] = last
		return false, 0
	}
	if len(s) >= sampleMost {
		clear(s)
	}
	s[message] = sample{passed: now}
	return true, last.dropped
}

// lastError keeps what Envoy said last before it ended.
type lastError struct {
	mu   sync.Mutex
	text string
}

func (l *lastError) set(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = s
}

func (l *lastError) get() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text
}
