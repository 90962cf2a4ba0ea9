package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
)

// A segment is a head and records:
//
//	head:   magic, checksum of all that follows in it, length of the token (2 bytes), token
//	record: checksum of all that follows in it, rows (4), length of the payload (4), payload
//
// Numbers are little endian, checksums CRC-32C. Files of before had one batch each
// (magicBatch): magic, checksum, rows, length of the token, token, payload.
const (
	magic      = "TGSPOOL2"
	magicBatch = "TGSPOOL1"
	headSize   = len(magic) + 4 + 2
	recordSize = 4 + 4 + 4
	batchSize  = len(magicBatch) + 4 + 4 + 2
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func encodeHead(token string) []byte {
	raw := append(make([]byte, 0, headSize+len(token)), magic...)
	raw = append(raw, 0, 0, 0, 0)
	raw = binary.LittleEndian.AppendUint16(raw, uint16(len(token)))
	raw = append(raw, token...)
	binary.LittleEndian.PutUint32(raw[len(magic):], checksum(raw[len(magic)+4:]))
	return raw
}

func encodeRecord(rows int, payload []byte) []byte {
	raw := make([]byte, 4, recordSize+len(payload))
	raw = binary.LittleEndian.AppendUint32(raw, uint32(rows))
	raw = binary.LittleEndian.AppendUint32(raw, uint32(len(payload)))
	raw = append(raw, payload...)
	binary.LittleEndian.PutUint32(raw, checksum(raw[4:]))
	return raw
}

// head is the token of a segment and what follows it; ok is false where it is damaged.
func head(raw []byte) (token string, rest []byte, ok bool) {
	if len(raw) < headSize || string(raw[:len(magic)]) != magic {
		return "", nil, false
	}
	end := headSize + int(binary.LittleEndian.Uint16(raw[len(magic)+4:]))
	if len(raw) < end || checksum(raw[len(magic)+4:end]) != binary.LittleEndian.Uint32(raw[len(magic):]) {
		return "", nil, false
	}
	return string(raw[headSize:end]), raw[end:], true
}

// inspect says what is in a file by its heads alone; its batches are verified when they are
// read.
func inspect(path string) (*file, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	first := make([]byte, headSize+1<<16) // of any token
	n, err := io.ReadFull(in, first)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	f := &file{size: info.Size()}
	if token, rest, ok := head(first[:n]); ok {
		f.token = token
		f.rows, f.size, err = count(in, int64(n-len(rest)), info.Size())
		return f, err
	}
	if batch := first[:n]; n >= batchSize && string(batch[:len(magicBatch)]) == magicBatch {
		f.rows = int(binary.LittleEndian.Uint32(batch[len(magicBatch)+4:]))
		if end := batchSize + int(binary.LittleEndian.Uint16(batch[batchSize-2:])); n >= end {
			f.token = string(batch[batchSize:end])
		}
	}
	return f, nil
}

// count adds up the rows of the records from at on, and says where the last one ends.
func count(in io.ReaderAt, at, size int64) (rows int, end int64, err error) {
	var r [recordSize]byte
	for at+int64(recordSize) <= size {
		if _, err := in.ReadAt(r[:], at); err != nil {
			return rows, at, err
		}
		next := at + int64(recordSize) + int64(binary.LittleEndian.Uint32(r[8:]))
		if next > size {
			break
		}
		rows, at = rows+int(binary.LittleEndian.Uint32(r[4:])), next
	}
	return rows, at, nil
}

// decode reads a segment, or a batch of before, of which f is known.
func decode(raw []byte, f *file) Segment {
	seg := Segment{Token: f.token, Damaged: f.rows, file: f}
	whole := raw[:min(int64(len(raw)), f.size)]
	rest := whole
	if bytes.HasPrefix(whole, []byte(magicBatch)) {
		seg.Batches, rest = decodeBatch(whole)
	} else if _, records, ok := head(whole); ok {
		seg.Batches, rest = decodeRecords(records)
	}
	seg.Skipped = int64(len(rest) + len(raw) - len(whole))
	for _, b := range seg.Batches {
		seg.Damaged -= b.Rows
	}
	return seg
}

// decodeRecords leaves out what is damaged, as far as it can be told where the next begins,
// and returns what follows.
func decodeRecords(raw []byte) (batches []Kept, rest []byte) {
	for len(raw) >= recordSize {
		n := int64(binary.LittleEndian.Uint32(raw[8:]))
		if n > int64(len(raw)-recordSize) {
			break
		}
		record := raw[:recordSize+int(n)]
		if checksum(record[4:]) == binary.LittleEndian.Uint32(record) {
			batches = append(batches, Kept{Rows: int(binary.LittleEndian.Uint32(record[4:])), Payload: record[recordSize:]})
		}
		raw = raw[len(record):]
	}
	return batches, raw
}

func decodeBatch(raw []byte) (batches []Kept, rest []byte) {
	if len(raw) < batchSize {
		return nil, raw
	}
	body := raw[len(magicBatch)+4:]
	n := int(binary.LittleEndian.Uint16(body[4:]))
	if len(body) < 6+n || checksum(body) != binary.LittleEndian.Uint32(raw[len(magicBatch):]) {
		return nil, raw
	}
	return []Kept{{Rows: int(binary.LittleEndian.Uint32(body)), Payload: body[6+n:]}}, nil
}
