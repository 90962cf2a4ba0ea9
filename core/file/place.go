package file

import (
	"fmt"
	"time"

	"github.com/tracegate/tracegate/mesh/secret"
)

// Place says where content is kept: on an S3 server where its endpoint is named, else in
// a folder.
type Place struct {
	Folder string
	Key    secret.Text // signs links to the folder; the same for all processes that share it
	S3     S3Config
}

// Named says whether there is a place at all.
func (p Place) Named() bool { return p.Folder != "" || p.S3.Endpoint != "" }

// Open returns the place; see [NewFolder] and [NewS3].
func (p Place) Open(now func() time.Time) (Blobs, error) {
	if p.S3.Endpoint == "" {
		return NewFolder(p.Folder, p.Key, now)
	}
	s, err := NewS3(p.S3)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	return s, nil
}
