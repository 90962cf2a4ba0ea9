// Command generate writes the dashboards' JSON into the provisioning folder; `go generate`
// runs it in the package's folder.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tracegate/tracegate/observability/dashboards"
)

func main() {
	if err := write(filepath.Join("provisioning", "dashboards")); err != nil {
		fmt.Fprintln(os.Stderr, "generate dashboards:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	for _, b := range dashboards.All() {
		d, err := dashboards.Render(b)
		if err != nil {
			return fmt.Errorf("%s: %w", b.UID, err)
		}
		raw, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			return fmt.Errorf("%s: %w", b.UID, err)
		}
		if err := os.WriteFile(filepath.Join(dir, b.UID+".json"), append(raw, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}
