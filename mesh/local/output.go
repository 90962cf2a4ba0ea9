package local

import (
	"bytes"
	"io"
	"strings"
)

// lines passes whole lines on, so that the parts' lines do not mix, and remembers
// the last one, which says why a part that ends did so. Parts name themselves in
// their log lines; nothing is added here.
type lines struct {
	w    io.Writer
	buf  bytes.Buffer
	last string
}

func (l *lines) Write(b []byte) (int, error) {
	l.buf.Write(b)
	whole := bytes.LastIndexByte(l.buf.Bytes(), '\n') + 1
	if whole == 0 {
		return len(b), nil
	}
	text := l.buf.Next(whole)
	trimmed := strings.TrimRight(string(text), "\n")
	l.last = trimmed[strings.LastIndexByte(trimmed, '\n')+1:]
	if _, err := l.w.Write(text); err != nil {
		return 0, err
	}
	return len(b), nil
}
