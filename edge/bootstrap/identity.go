package bootstrap

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/tracegate/tracegate/controlplane/xds/parts"
	"github.com/tracegate/tracegate/mesh/identity"
)

// IdentityFiles are files, by path, that an edge needs in its identity folder
// (mesh/identity), which is dir, absolute. Envoy reads a certificate again when a file is
// moved into its folder, as a rename does and as Kubernetes does with a mounted secret.
func IdentityFiles(dir string) (map[string][]byte, error) {
	own := filepath.Join(dir, string(identity.Edge))
	file := func(path string) map[string]any { return map[string]any{"filename": path} }
	out := map[string][]byte{}
	for name, secret := range map[string]map[string]any{
		parts.IdentityFile: {"name": "identity", "tls_certificate": map[string]any{
			"certificate_chain": file(filepath.Join(own, identity.ChainFile)),
			"private_key":       file(filepath.Join(own, identity.KeyFile)),
			"watched_directory": map[string]any{"path": own},
		}},
		parts.AuthorityFile: {"name": "authority", "validation_context": map[string]any{
			"trusted_ca":        file(filepath.Join(dir, identity.CAFile)),
			"watched_directory": map[string]any{"path": dir},
		}},
	} {
		secret["@type"] = parts.SecretURL
		raw, err := json.MarshalIndent(map[string]any{"resources": []any{secret}}, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", name, err)
		}
		out[filepath.Join(own, name)] = append(raw, '\n')
	}
	return out, nil
}
