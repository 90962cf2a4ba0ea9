package engine

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// request is what a client asks, read from the URL and the headers.
type request struct {
	sql      string // from the URL; empty where the body holds it
	database string
	format   string // of results without a FORMAT clause
	queryID  string
	// revision is the protocol version that clickhouse-go announces, else 0.
	revision uint64
	params   map[string]string // {name:Type} in the SQL
	settings map[string]string
	// compress asks for ClickHouse's block framing of the result by method (LZ4,
	// ZSTD, NONE); decompress says that the body has it.
	compress, decompress bool
	method               string
}

// transport are URL parameters of ClickHouse's HTTP interface that are no settings
// of a query and have no meaning here, or are read by parseRequest.
func transport(name string) bool {
	switch name {
	case "query", "database", "default_format", "client_protocol_version", "compress", "decompress", "query_id", "quota_key",
		"buffer_size", "wait_end_of_query", "network_compression_method", "network_zstd_compression_level",
		"enable_http_compression", "http_zlib_compression_level", "send_progress_in_http_headers":
		return true
	}
	return false
}

// parseRequest reads q and h, and refuses what this interface does not have.
func parseRequest(q url.Values, h http.Header) (request, error) {
	r := request{
		sql: q.Get("query"), database: q.Get("database"), format: q.Get("default_format"), queryID: q.Get("query_id"),
		compress: q.Get("compress") == "1", decompress: q.Get("decompress") == "1", method: strings.ToUpper(q.Get("network_compression_method")),
		params: map[string]string{}, settings: map[string]string{},
	}
	if r.database == "" {
		r.database = h.Get("X-ClickHouse-Database")
	}
	if f := h.Get("X-ClickHouse-Format"); f != "" {
		r.format = f
	}
	if r.format == "" {
		r.format = "TabSeparated"
	}
	if !isName(r.format) {
		return request{}, newException(73, "UNKNOWN_FORMAT", "Unknown format %q", r.format)
	}
	if v := q.Get("client_protocol_version"); v != "" {
		var err error
		if r.revision, err = strconv.ParseUint(v, 10, 64); err != nil {
			return request{}, newException(72, "CANNOT_PARSE_NUMBER", "client_protocol_version: %q is no number", v)
		}
	}
	for name, values := range q {
		switch p, isParam := strings.CutPrefix(name, "param_"); {
		case isParam:
			r.params[p] = values[0]
		case name == "user", name == "password":
			return request{}, newException(codeRequiredPassword, "REQUIRED_PASSWORD", "user and password are taken from the Authorization or X-ClickHouse-Key header, not from the URL, where logs would keep them")
		case strings.HasPrefix(name, "session_"), name == "role":
			return request{}, newException(codeNotImplemented, "NOT_IMPLEMENTED", "%s: the embedded engine has no sessions and no roles", name)
		case transport(name):
		default:
			if strings.ContainsRune(values[0], 0) {
				return request{}, newException(codeUnknownSetting, "UNKNOWN_SETTING", "Setting %s: value has a zero byte", name)
			}
			r.settings[name] = values[0]
		}
	}
	return r, nil
}
