package ctlapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Paths about instances.
const (
	PathEndpoints = "/v1/endpoints"
	PathDrain     = "/v1/endpoints/drain"
	PathUndrain   = "/v1/endpoints/undrain"
)

// DrainOrder asks that an instance gets no new requests, or that it gets them again.
type DrainOrder struct {
	Service  string `json:"service"`
	Pool     string `json:"pool"`
	Instance string `json:"instance"` // its address, as in [Endpoint]
	Reason   string `json:"reason"`
	By       string `json:"by,omitempty"`     // as of an [Order]
	ForMS    int64  `json:"for_ms,omitempty"` // zero: until it is undone
	Force    bool   `json:"force,omitempty"`  // although it is the last of its pool that does not drain
}

// Drain is an instance that gets no new requests.
type Drain struct {
	Service  string    `json:"service"` // as instances are listed: of a service that has those of another, the other
	Pool     string    `json:"pool"`
	Instance string    `json:"instance"`
	By       string    `json:"by"`
	Reason   string    `json:"reason"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until,omitzero"` // zero: until it is undone
	Gone     time.Time `json:"gone,omitzero"`  // since when the instance is not there; zero: it is
}

// Endpoint is an instance as edges know it.
type Endpoint struct {
	Service  string `json:"service"`
	Pool     string `json:"pool"`
	Instance string `json:"instance"` // IP address and port
	Zone     string `json:"zone,omitempty"`
	State    string `json:"state"` // serves, backup or drains
}

// States of an endpoint. Whether it is healthy only edges know.
const (
	EndpointServes = "serves"
	EndpointBackup = "backup" // serves where none of the pool's own does
	EndpointDrains = "drains"
)

// Endpoints are all instances, by service and pool.
func (c *Client) Endpoints(ctx context.Context) ([]Endpoint, error) {
	var out []Endpoint
	return out, c.call(ctx, http.MethodGet, PathEndpoints, nil, &out)
}

// Drain takes an instance out of rotation.
func (c *Client) Drain(ctx context.Context, o DrainOrder) (Drain, error) {
	return c.drain(ctx, PathDrain, o)
}

// Undrain puts it back, and returns what ended.
func (c *Client) Undrain(ctx context.Context, o DrainOrder) (Drain, error) {
	return c.drain(ctx, PathUndrain, o)
}

func (c *Client) drain(ctx context.Context, path string, o DrainOrder) (Drain, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return Drain{}, fmt.Errorf("encode order: %w", err)
	}
	var out Drain
	return out, c.call(ctx, http.MethodPost, path, body, &out)
}
