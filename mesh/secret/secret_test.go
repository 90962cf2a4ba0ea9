package secret_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/tracegate/tracegate/mesh/secret"
)

func TestTextDoesNotPrint(t *testing.T) {
	type config struct{ Password secret.Text }
	c := config{Password: "hunter2"}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "p", c.Password, "c", c)
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s %q", c, c, c, c.Password, c.Password), logged.String()} {
		if strings.Contains(s, "hunter2") || !strings.Contains(s, "redacted") {
			t.Errorf("secret prints as %s", s)
		}
	}
	if string(c.Password) != "hunter2" {
		t.Error("secret is lost")
	}
}
