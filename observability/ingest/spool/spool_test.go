package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var wide = Bounds{Bytes: 1 << 20, SegmentRows: 1 << 20, SegmentBytes: 1 << 20}

func open(t *testing.T, dir string, bounds Bounds) *Spool {
	t.Helper()
	s, err := Open(dir, bounds)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func put(t *testing.T, s *Spool, batches ...Batch) {
	t.Helper()
	for _, b := range batches {
		if err := s.Append(b, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
}

// drain takes everything.
func drain(t *testing.T, s *Spool) []Segment {
	t.Helper()
	var out []Segment
	for {
		seg, ok, err := s.Oldest()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return out
		}
		out = append(out, seg)
		if err := s.Remove(seg); err != nil {
			t.Fatal(err)
		}
	}
}

func batch(kind, token string, rows int, payload string) Batch {
	return Batch{Kind: kind, Token: token, Rows: rows, Payload: []byte(payload)}
}

func segment(token string, batches ...Kept) Segment { return Segment{Token: token, Batches: batches} }

func kept(rows int, payload string) Kept { return Kept{Rows: rows, Payload: []byte(payload)} }

func compare(t *testing.T, got, want []Segment) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Segment{}), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("segments (-want +got):\n%s", diff)
	}
}

// TestSegments says what goes together: batches of one kind, until something ends their
// segment.
func TestSegments(t *testing.T) {
	alone := batch("a", "tried", 1, "t")
	alone.Alone = true
	for name, c := range map[string]struct {
		bounds Bounds
		in     []Batch
		want   []Segment
	}{
		"one kind": {wide, []Batch{batch("a", "1", 1, "x"), batch("a", "2", 2, ""), batch("a", "3", 3, "z")}, []Segment{segment("1", kept(1, "x"), kept(2, ""), kept(3, "z"))}},
		"two kinds": {
			wide,
			[]Batch{batch("a", "1", 1, "x"), batch("b", "2", 2, "y"), batch("a", "3", 3, "z"), batch("b", "4", 4, "w")},
			[]Segment{segment("1", kept(1, "x"), kept(3, "z")), segment("2", kept(2, "y"), kept(4, "w"))},
		},
		"one that was tried": {
			wide, []Batch{batch("a", "1", 1, "x"), alone, batch("a", "3", 3, "z")},
			[]Segment{segment("1", kept(1, "x"), kept(3, "z")), segment("tried", kept(1, "t"))},
		},
		"the first was tried": {wide, []Batch{alone, batch("a", "3", 3, "z")}, []Segment{segment("tried", kept(1, "t")), segment("3", kept(3, "z"))}},
		"many rows": {
			Bounds{1 << 20, 5, 1 << 20},
			[]Batch{batch("a", "1", 3, "x"), batch("a", "2", 2, "y"), batch("a", "3", 1, "z"), batch("a", "4", 9, "w"), batch("a", "5", 1, "v")},
			[]Segment{segment("1", kept(3, "x"), kept(2, "y")), segment("3", kept(1, "z")), segment("4", kept(9, "w")), segment("5", kept(1, "v"))},
		},
		"many bytes": {
			Bounds{1 << 20, 1 << 20, int64(headSize + 1 + 2*(recordSize+1))},
			[]Batch{batch("a", "1", 1, "x"), batch("a", "2", 1, "y"), batch("a", "3", 1, "z")},
			[]Segment{segment("1", kept(1, "x"), kept(1, "y")), segment("3", kept(1, "z"))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, c.bounds)
			put(t, s, c.in...)
			compare(t, drain(t, open(t, dir, c.bounds)), c.want) // as after a kill
			if got := open(t, dir, c.bounds).Usage(); got != (Usage{}) {
				t.Errorf("usage = %+v, want nothing", got)
			}
		})
	}
}

// TestWhatIsTakenDoesNotChange: what was given with a token once is given with it again, and
// nothing else, whatever is appended meanwhile, over restarts.
func TestWhatIsTakenDoesNotChange(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, wide)
	put(t, s, batch("a", "1", 1, "x"))
	first, _, err := s.Oldest()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, batch("a", "2", 2, "y"))
	again, _, err := s.Oldest()
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, wide)
	put(t, s, batch("a", "3", 3, "z"))
	if got, want := s.Usage().Rows, 6; got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
	compare(t, append([]Segment{first, again}, drain(t, s)...), []Segment{
		segment("1", kept(1, "x")), segment("1", kept(1, "x")), segment("1", kept(1, "x")), segment("2", kept(2, "y")), segment("3", kept(3, "z")),
	})
}

func TestFoldersOfEarlierRuns(t *testing.T) {
	dir := t.TempDir()
	put(t, open(t, dir, wide), batch("a", "now", 1, "x"))
	before := encodeOld("of before", 4, []byte("old"))
	for name, raw := range map[string][]byte{"0000000000000007.batch": before, "0000000000000009.segment.tmp": []byte("half"), "README": []byte("not ours")} {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, wide)
	if got := s.Usage(); got.Rows != 5 || got.Segments != 2 {
		t.Errorf("usage = %+v", got)
	}
	put(t, s, batch("a", "later", 2, "y"))
	compare(t, drain(t, s), []Segment{segment("now", kept(1, "x")), segment("of before", kept(4, "old")), segment("later", kept(2, "y"))})
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "README" {
		t.Errorf("left in folder: %v, %v", left, err)
	}
}

// encodeOld is what versions before segments wrote.
func encodeOld(token string, rows int, payload []byte) []byte {
	raw := append([]byte(magicBatch), 0, 0, 0, 0)
	raw = binary.LittleEndian.AppendUint32(raw, uint32(rows))
	raw = binary.LittleEndian.AppendUint16(raw, uint16(len(token)))
	raw = append(append(raw, token...), payload...)
	binary.LittleEndian.PutUint32(raw[len(magicBatch):], checksum(raw[len(magicBatch)+4:]))
	return raw
}

func TestFullSpoolRefusesTheNewest(t *testing.T) {
	s := open(t, t.TempDir(), Bounds{200, 1 << 20, 1 << 20})
	large := string(make([]byte, 100))
	put(t, s, batch("a", "1", 1, large))
	for name, err := range map[string]error{
		"more":                          s.Append(batch("a", "2", 1, large), 1<<20),
		"of another kind":               s.Append(batch("b", "2", 1, large), 1<<20),
		"with less room than was taken": s.Append(batch("a", "3", 1, ""), 100),
	} {
		if !errors.Is(err, ErrFull) {
			t.Errorf("%s: error = %v, want ErrFull", name, err)
		}
	}
	var tokens []string
	s.Each(func(token string, rows int) { tokens = append(tokens, fmt.Sprint(token, "/", rows)) })
	if !slices.Equal(tokens, []string{"1/1"}) {
		t.Errorf("segments = %v", tokens)
	}
	compare(t, drain(t, s), []Segment{segment("1", kept(1, large))})
	put(t, s, batch("b", "2", 1, large))
}

// TestDamage writes three batches, of 1, 2 and 4 rows, and harms the file.
func TestDamage(t *testing.T) {
	second := headSize + len("token") + recordSize + len("first")
	third := second + recordSize + len("second")
	end := third + recordSize + len("third")
	flip := func(i int) func([]byte) []byte { return func(b []byte) []byte { b[i] ^= 1; return b } }
	for name, c := range map[string]struct {
		harm    func([]byte) []byte
		kept    []int // rows of what is left
		damaged int
		skipped int
	}{
		"a bit of a payload":     {flip(third - 1), []int{1, 4}, 2, 0},
		"a bit of rows":          {flip(second + 4), []int{1, 4}, 2, 0},
		"the length of a batch":  {func(b []byte) []byte { b[second+10] = 0xff; return b }, []int{1}, 6, end - second},
		"the end":                {func(b []byte) []byte { return b[:end-1] }, []int{1, 2}, 4, recordSize + 4},
		"the magic":              {flip(0), nil, 7, end},
		"the token":              {flip(headSize), nil, 7, end},
		"all":                    {func([]byte) []byte { return nil }, nil, 7, 0},
		"more than was kept":     {func(b []byte) []byte { return append(b, encodeRecord(9, nil)...) }, []int{1, 2, 4}, 0, recordSize},
		"the start of one batch": {func(b []byte) []byte { return append(b, encodeRecord(9, []byte("x"))[:7]...) }, []int{1, 2, 4}, 0, 7},
		"nothing":                {func(b []byte) []byte { return b }, []int{1, 2, 4}, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, wide)
			put(t, s, batch("a", "token", 1, "first"), batch("a", "", 2, "second"), batch("a", "", 4, "third"), batch("b", "good", 1, "good"))
			path := filepath.Join(dir, "0000000000000000.segment")
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, c.harm(raw), 0o600); err != nil {
				t.Fatal(err)
			}
			seg, ok, err := s.Oldest()
			if !ok || err != nil {
				t.Fatal(ok, err)
			}
			var rows []int
			for _, b := range seg.Batches {
				rows = append(rows, b.Rows)
			}
			if !slices.Equal(rows, c.kept) || seg.Damaged != c.damaged || seg.Skipped != int64(c.skipped) {
				t.Errorf("kept %v, %d damaged, %d bytes skipped; want %v, %d, %d", rows, seg.Damaged, seg.Skipped, c.kept, c.damaged, c.skipped)
			}
			if err := s.Remove(seg); err != nil {
				t.Fatal(err)
			}
			compare(t, drain(t, s), []Segment{segment("good", kept(1, "good"))})
			if got := s.Usage(); got != (Usage{}) {
				t.Errorf("usage = %+v, want nothing", got)
			}
		})
	}
}

// TestARestartAfterATornWrite: what a crash left at the end belongs to nobody, and nothing is
// written behind it.
func TestARestartAfterATornWrite(t *testing.T) {
	dir := t.TempDir()
	put(t, open(t, dir, wide), batch("a", "1", 3, "x"))
	f, err := os.OpenFile(filepath.Join(dir, "0000000000000000.segment"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(encodeRecord(5, []byte("torn"))[:14])
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir, wide)
	if got := s.Usage().Rows; got != 3 {
		t.Errorf("%d rows, want 3", got)
	}
	put(t, s, batch("a", "2", 1, "y"))
	torn := segment("1", kept(3, "x"))
	torn.Skipped = 14
	compare(t, drain(t, s), []Segment{torn, segment("2", kept(1, "y"))})
}

// TestAFailedWriteLeavesTheRest: a batch that could not be written is not in its segment,
// which others are not either.
func TestAFailedWriteLeavesTheRest(t *testing.T) {
	s := open(t, t.TempDir(), wide)
	put(t, s, batch("a", "1", 1, "x"))
	_ = s.open["a"].out.Close() // each write fails from now on
	if err := s.Append(batch("a", "2", 2, "y"), 1<<20); err == nil {
		t.Fatal("no error")
	}
	put(t, s, batch("a", "3", 4, "z"))
	if got := s.Usage().Rows; got != 5 {
		t.Errorf("%d rows, want 5", got)
	}
	compare(t, drain(t, s), []Segment{segment("1", kept(1, "x")), segment("3", kept(4, "z"))})
}

func TestAFileThatIsGoneIsDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, wide)
	put(t, s, batch("a", "1", 3, "x"), batch("b", "2", 1, "y"))
	if err := os.Remove(filepath.Join(dir, "0000000000000000.segment")); err != nil {
		t.Fatal(err)
	}
	gone := segment("1")
	gone.Damaged = 3
	compare(t, drain(t, s), []Segment{gone, segment("2", kept(1, "y"))})
}

// TestUnreadableSegmentsHoldUpNothing puts a folder where a file was: reading it fails, for
// root too.
func TestUnreadableSegmentsHoldUpNothing(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, wide)
	put(t, s, batch("a", "1", 3, "x"), batch("b", "2", 1, "y"))
	path := filepath.Join(dir, "0000000000000000.segment")
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	seg, ok, err := s.Oldest()
	if !ok || err == nil || seg.Token != "1" {
		t.Fatalf("segment %+v, ok %t, error %v; want an error for the first", seg, ok, err)
	}
	s.Defer(seg)
	seg, ok, err = s.Oldest()
	if !ok || err != nil || seg.Token != "2" {
		t.Fatalf("segment %+v, ok %t, error %v; want the second", seg, ok, err)
	}
	if err := s.Remove(seg); err != nil {
		t.Fatal(err)
	}
	if got := s.Usage(); got.Segments != 1 || got.Rows != 3 {
		t.Errorf("usage = %+v, want what could not be read", got)
	}
	s = open(t, dir, wide)
	if got := s.Unreadable(); len(got) != 1 {
		t.Errorf("unreadable = %v, want one", got)
	}
	put(t, s, batch("a", "3", 1, "z")) // under another name
	compare(t, drain(t, s), []Segment{segment("3", kept(1, "z"))})
}

// TestAnyCrash cuts what was written at any byte: what is kept is a prefix, and its rows are
// those that usage says.
func TestAnyCrash(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		dir := t.TempDir()
		s := open(t, dir, wide)
		var payloads [][]byte
		for i := range 1 + random.IntN(5) {
			payload := make([]byte, random.IntN(40))
			payloads = append(payloads, payload)
			put(t, s, Batch{Kind: "a", Token: "token", Rows: 1 + i, Payload: payload})
		}
		path := filepath.Join(dir, "0000000000000000.segment")
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		first := headSize + len("token") + recordSize + len(payloads[0])
		if err := os.WriteFile(path, raw[:first+random.IntN(len(raw)-first+1)], 0o600); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, wide)
		usage, got := s.Usage(), drain(t, s)
		if len(got) != 1 || len(got[0].Batches) == 0 || got[0].Damaged != 0 {
			t.Fatalf("segments = %+v", got)
		}
		rows := 0
		for i, b := range got[0].Batches {
			if rows += b.Rows; b.Rows != i+1 || !bytes.Equal(b.Payload, payloads[i]) {
				t.Errorf("batch %d = %+v", i, b)
			}
		}
		if usage.Rows != rows {
			t.Errorf("usage says %d rows, there are %d", usage.Rows, rows)
		}
	}
}

// FuzzDecode: nothing panics, and inspect and decode agree about rows.
func FuzzDecode(f *testing.F) {
	f.Add(append(encodeHead("token"), encodeRecord(3, []byte("payload"))...))
	f.Add(encodeOld("token", 3, []byte("payload")))
	f.Add([]byte(magic))
	f.Add([]byte(magicBatch))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := inspect(path)
		if err != nil {
			t.Fatal(err)
		}
		seg := decode(raw, found)
		rows := seg.Damaged
		for _, b := range seg.Batches {
			rows += b.Rows
		}
		if rows != found.rows || seg.Damaged < 0 {
			t.Errorf("%d rows, of which %d damaged; the heads say %d", rows, seg.Damaged, found.rows)
		}
	})
}
