package durable

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrForged is a file that was not written with the key: edited by hand, copied from
// another machine or under another name, or older than the key.
var ErrForged = errors.New("signature does not match")

// KeySize is that of a key in bytes.
const KeySize = 32

// signed is what a signed file holds.
type signed struct {
	HMAC  string          `json:"hmac_sha256"` // of the file's name, a zero byte and Value's bytes
	Value json.RawMessage `json:"value"`
}

// Key reads the key of a file, hex of [KeySize] bytes, and makes one where there is
// no file. A file with anything else in it is an error: a key that everybody knows
// would be worse than none.
func Key(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		key := make([]byte, KeySize)
		_, _ = rand.Read(key) // never returns an error: crypto/rand.Read
		if err := Replace(path, []byte(hex.EncodeToString(key)+"\n")); err != nil {
			return nil, fmt.Errorf("keep signing key: %w", err)
		}
		return key, nil
	case err != nil:
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != KeySize {
		return nil, fmt.Errorf("read signing key: %s is not %d hex digits", filepath.Base(path), 2*KeySize)
	}
	return key, nil
}

// SaveSigned is [Save] with a signature (HMAC-SHA256) instead of a checksum.
func SaveSigned(path string, key []byte, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	data, err := json.Marshal(signed{HMAC: hex.EncodeToString(sign(path, key, value)), Value: value})
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	return Replace(path, append(data, '\n'))
}

// LoadSigned reads what SaveSigned wrote with the same key under the same name. Its
// error is fs.ErrNotExist where there is no file, [ErrCorrupt] where it is no whole
// file, and [ErrForged] where its signature is another.
func LoadSigned(path string, key []byte, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	var s signed
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("decode %s: %w: %w", filepath.Base(path), ErrCorrupt, err)
	}
	mac, err := hex.DecodeString(s.HMAC)
	if err != nil || !hmac.Equal(mac, sign(path, key, s.Value)) {
		return fmt.Errorf("decode %s: %w", filepath.Base(path), ErrForged)
	}
	if err := json.Unmarshal(s.Value, v); err != nil {
		return fmt.Errorf("decode %s: %w: %w", filepath.Base(path), ErrCorrupt, err)
	}
	return nil
}

func sign(path string, key, value []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(filepath.Base(path)))
	mac.Write([]byte{0})
	mac.Write(value)
	return mac.Sum(nil)
}
