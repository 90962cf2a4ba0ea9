package chdb

import (
	"errors"
	"fmt"
	"io"
	"runtime"
)

// ErrConnect is all that the C API says of a connection that could not be opened:
// the path is held by another process or not writable, or a setting's value is bad.
var ErrConnect = errors.New("connect to engine: path locked or not writable, or a setting's value is bad")

// appendSize is how much of an INSERT's data is handed to the engine at once.
const appendSize = 1 << 20

// Conn is one connection. It runs one statement at a time and is not safe for
// concurrent use.
type Conn struct {
	l      *Library
	handle ptr // chdb_connection *
	conn   ptr // chdb_connection
}

// Connect opens a connection; args are command line arguments such as
// "--path=/absolute/folder" or "--max_threads=2". All connections of a process must
// name the same path. A setting that does not exist is ignored, not refused.
func (l *Library) Connect(args ...string) (*Conn, error) {
	bufs := make([][]byte, 0, len(args)+1)
	for _, a := range append([]string{"clickhouse"}, args...) {
		bufs = append(bufs, append([]byte(a), 0))
	}
	argv := make([]*byte, len(bufs)+1)
	for i := range bufs {
		argv[i] = &bufs[i][0]
	}
	l.connecting.Lock()
	defer l.connecting.Unlock()
	handle := l.connect(int32(len(bufs)), ptr(&argv[0]))
	runtime.KeepAlive(bufs)
	runtime.KeepAlive(argv)
	if handle == nil {
		return nil, ErrConnect
	}
	return &Conn{l: l, handle: handle, conn: *(*ptr)(handle)}, nil
}

// Close ends the connection. A second call does nothing.
func (c *Conn) Close() {
	c.l.connecting.Lock()
	defer c.l.connecting.Unlock()
	if c.handle != nil {
		c.l.closeConn(c.handle)
		c.handle, c.conn = nil, nil
	}
}

// Query runs sql and encodes the whole result in format. The result must be freed.
func (c *Conn) Query(sql, format string, params map[string]string) (*Result, error) {
	r := &Result{l: c.l, r: c.call(c.l.query, c.l.queryParams, sql, format, params)}
	if err := r.err(); err != nil {
		r.Free()
		return nil, err
	}
	return r, nil
}

// Stream runs a SELECT and hands its encoded result to each, piece by piece; a piece
// is valid during the call only. It ends at the first error of each.
func (c *Conn) Stream(sql, format string, params map[string]string, each func(piece []byte) error) error {
	s := c.call(c.l.stream, c.l.streamParams, sql, format, params)
	if s == nil {
		return errors.New("stream query: engine gave no result")
	}
	defer c.l.destroyResult(s)
	if msg := c.l.resultError(s); msg != "" {
		return errors.New(msg)
	}
	for {
		r := &Result{l: c.l, r: c.l.streamFetch(c.conn, s)}
		if err := r.err(); err != nil {
			r.Free()
			return err
		}
		piece := r.Bytes()
		if len(piece) == 0 { // the end is an empty piece or none
			r.Free()
			return nil
		}
		err := each(piece)
		r.Free()
		if err != nil {
			c.l.streamCancel(c.conn, s)
			return err
		}
	}
}

// Insert feeds data, encoded in format, to sql ("INSERT INTO ..." without a FORMAT
// clause) and returns the rows written once they are part of the table. When reading
// data fails, nothing more is written and that error is returned; blocks written
// until then stay.
func (c *Conn) Insert(sql, format string, data io.Reader) (rows uint64, err error) {
	q, f := []byte(sql), []byte(format)
	s := c.l.insert(c.conn, address(q), uintptr(len(q)), address(f), uintptr(len(f)))
	runtime.KeepAlive(q)
	runtime.KeepAlive(f)
	if s == nil {
		return 0, errors.New("start insert: engine gave no stream")
	}
	defer c.l.insertDestroy(s)
	if msg := c.l.insertError(s); msg != "" {
		return 0, errors.New(msg)
	}
	if err := c.feed(s, data); err != nil {
		return 0, err
	}
	r := &Result{l: c.l, r: c.l.insertDone(s)}
	defer r.Free()
	if err := r.err(); err != nil {
		return 0, err
	}
	return r.WrittenRows(), nil
}

// feed copies data into the insert stream. What the engine objects to is reported by
// insertDone, except where it has a message at once.
func (c *Conn) feed(s ptr, data io.Reader) error {
	buf := make([]byte, appendSize)
	for {
		n, rerr := io.ReadFull(data, buf)
		if n > 0 && c.l.insertAppend(s, address(buf[:n]), uintptr(n)) != 0 {
			if msg := c.l.insertError(s); msg != "" {
				return errors.New(msg)
			}
			return nil
		}
		// Decompressing readers wrap io.EOF, so it is tested by errors.Is.
		if errors.Is(rerr, io.EOF) || errors.Is(rerr, io.ErrUnexpectedEOF) {
			return nil
		}
		if rerr != nil {
			c.l.insertCancel(s)
			return fmt.Errorf("read insert data: %w", rerr)
		}
	}
}

// call runs plain, or withParams where there are any.
func (c *Conn) call(plain func(conn, sql ptr, sqlLen uintptr, format ptr, formatLen uintptr) ptr,
	withParams func(conn, sql ptr, sqlLen uintptr, format ptr, formatLen uintptr, names, nameLens, values, valueLens ptr, n uintptr) ptr,
	sql, format string, params map[string]string,
) ptr {
	q, f := []byte(sql), []byte(format)
	defer runtime.KeepAlive(q)
	defer runtime.KeepAlive(f)
	if len(params) == 0 {
		return plain(c.conn, address(q), uintptr(len(q)), address(f), uintptr(len(f)))
	}
	var names, values []ptr
	var nameLens, valueLens []uintptr
	for k, v := range params {
		kb, vb := []byte(k), []byte(v)
		names, nameLens = append(names, address(kb)), append(nameLens, uintptr(len(kb)))
		values, valueLens = append(values, address(vb)), append(valueLens, uintptr(len(vb)))
	}
	r := withParams(c.conn, address(q), uintptr(len(q)), address(f), uintptr(len(f)),
		ptr(&names[0]), ptr(&nameLens[0]), ptr(&values[0]), ptr(&valueLens[0]), uintptr(len(names)))
	runtime.KeepAlive(names)
	runtime.KeepAlive(values)
	return r
}

// address is the address of b's first byte, or of some byte where b is empty: the
// engine takes no null pointers.
func address(b []byte) ptr {
	if len(b) == 0 {
		b = make([]byte, 1)
	}
	return ptr(&b[0])
}
