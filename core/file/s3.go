package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/tracegate/tracegate/mesh/secret"
)

// S3Config names a bucket.
type S3Config struct {
	Endpoint  string // http(s)://host[:port], as core reaches it
	Public    string // the same as clients reach it; empty: as core does
	Region    string
	Bucket    string // made where it is missing
	AccessKey string
	SecretKey secret.Text
}

// Validate names the key that is wrong.
func (c S3Config) Validate() error {
	for key, endpoint := range map[string]string{"endpoint": c.Endpoint, "public": c.Public} {
		u, err := url.Parse(endpoint)
		if endpoint == "" && key == "public" {
			continue
		}
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return errors.New(key + ": must be http://host or https://host, with a port or without")
		}
	}
	switch {
	case c.Bucket == "":
		return errors.New("bucket: must not be empty")
	case c.Region == "":
		return errors.New("region: must not be empty")
	case c.AccessKey == "" || c.SecretKey == "":
		return errors.New("access_key: and secret_key must be given")
	}
	return nil
}

// S3 keeps content in a bucket. It connects when it is first used.
type S3 struct {
	cfg    S3Config
	client *minio.Client
	public *minio.Client
	bucket atomic.Bool // it is known to be there
}

// partSize is what is held in memory of an upload, and the least that S3 takes as a part.
const partSize = 5 << 20

// NewS3 prepares a client.
func NewS3(cfg S3Config) (*S3, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("s3 config: %w", err)
	}
	s := &S3{cfg: cfg}
	var err error
	if s.client, err = newMinio(cfg, cfg.Endpoint); err != nil {
		return nil, fmt.Errorf("new s3 client: %w", err)
	}
	s.public = s.client
	if cfg.Public != "" {
		if s.public, err = newMinio(cfg, cfg.Public); err != nil {
			return nil, fmt.Errorf("new s3 client: %w", err)
		}
	}
	return s, nil
}

func newMinio(cfg S3Config, endpoint string) (*minio.Client, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	transport, err := minio.DefaultTransport(u.Scheme == "https")
	if err != nil {
		return nil, err
	}
	transport.ResponseHeaderTimeout = 15 * time.Second
	return minio.New(u.Host, &minio.Options{
		Creds:  credentials.NewStaticV4(cfg.AccessKey, string(cfg.SecretKey), ""),
		Secure: u.Scheme == "https", Region: cfg.Region, Transport: transport,
		MaxRetries: 3, // its users wait: they are told to try again instead
	})
}

// ready makes the bucket once.
func (s *S3) ready(ctx context.Context) error {
	if s.bucket.Load() {
		return nil
	}
	exists, err := s.client.BucketExists(ctx, s.cfg.Bucket)
	if err == nil && !exists {
		err = s.client.MakeBucket(ctx, s.cfg.Bucket, minio.MakeBucketOptions{Region: s.cfg.Region})
		if code := minio.ToErrorResponse(err).Code; code == "BucketAlreadyOwnedByYou" || code == "BucketAlreadyExists" {
			err = nil // another process was first
		}
	}
	if err != nil {
		return fmt.Errorf("make bucket: %w", err)
	}
	s.bucket.Store(true)
	return nil
}

// Put implements [Blobs]. What fits into one part goes in one request.
func (s *S3) Put(ctx context.Context, key, mime string, r io.Reader) (int64, error) {
	if err := s.ready(ctx); err != nil {
		return 0, err
	}
	first, err := io.ReadAll(io.LimitReader(r, partSize))
	if err != nil {
		return 0, fmt.Errorf("read content: %w", err)
	}
	size, body := int64(len(first)), io.Reader(bytes.NewReader(first))
	if size == partSize {
		size, body = -1, io.MultiReader(body, r)
	}
	info, err := s.client.PutObject(ctx, s.cfg.Bucket, key, body, size, minio.PutObjectOptions{ContentType: mime, PartSize: partSize, NumThreads: 1})
	if err != nil {
		return 0, s.failed("put object", err)
	}
	if size >= 0 {
		return size, nil
	}
	return info.Size, nil
}

// failed has the bucket looked for again where it has gone.
func (s *S3) failed(step string, err error) error {
	switch minio.ToErrorResponse(err).Code {
	case minio.NoSuchBucket:
		s.bucket.Store(false)
	case minio.NoSuchKey:
		err = errors.Join(ErrNoBlob, err)
	}
	return fmt.Errorf("%s: %w", step, err)
}

// Open implements [Blobs].
func (s *S3) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	object, err := s.client.GetObject(ctx, s.cfg.Bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, s.failed("get object", err)
	}
	if _, err := object.Stat(); err != nil { // nothing was asked for before
		object.Close()
		return nil, s.failed("get object", err)
	}
	return object, nil
}

// Delete implements [Blobs]; parts of an upload whose process was killed go too.
func (s *S3) Delete(ctx context.Context, key string) error {
	if err := s.ready(ctx); err != nil {
		return err
	}
	if err := s.client.RemoveObject(ctx, s.cfg.Bucket, key, minio.RemoveObjectOptions{}); err != nil && minio.ToErrorResponse(err).StatusCode != http.StatusNotFound {
		return s.failed("remove object", err)
	}
	if err := s.client.RemoveIncompleteUpload(ctx, s.cfg.Bucket, key); err != nil && minio.ToErrorResponse(err).StatusCode != http.StatusNotFound {
		return s.failed("remove parts", err)
	}
	return nil
}

// Sweep implements [Blobs]. All that is in a bucket has a row, so there is nothing.
func (s *S3) Sweep(context.Context, time.Time) error { return nil }

// Link implements [Blobs]. It asks nobody: a signature is arithmetic.
func (s *S3) Link(ctx context.Context, d Download, until time.Time) (string, error) {
	q := url.Values{"response-content-type": {d.Type}, "response-content-disposition": {disposition(d)}, "response-cache-control": {"private"}}
	u, err := s.public.PresignedGetObject(ctx, s.cfg.Bucket, d.Key, time.Until(until).Round(time.Second), q)
	if err != nil {
		return "", fmt.Errorf("presign: %w", err)
	}
	return u.String(), nil
}
