package browsertest

import (
	"context"
	"crypto/sha512"
	_ "embed"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

//go:embed audit.js
var audit string

// axe-core (MPL-2.0) is not part of this project: npm brings it into the user's cache
// where there is npm, checked against this.
const (
	axeVersion   = "4.14.1"
	axeIntegrity = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)

// Accessible fails the test for everything that can be found by computing: by the
// checks of audit.js always, by axe-core where it is to be had.
func (tab *Tab) Accessible(view string) {
	tab.t.Helper()
	var findings []string
	tab.Eval(audit, &findings)
	for _, f := range findings {
		tab.t.Errorf("accessibility of %s: %s", view, f)
	}
	source, err := axe(tab.t.Context())
	if err != nil {
		tab.t.Logf("axe-core not used: %v", err)
		return
	}
	tab.Do(chromedp.Evaluate[chromedp.Void](source + ";undefined"))
	var found []struct {
		ID, Help string
		Nodes    []struct{ HTML, FailureSummary string }
	}
	tab.Eval(`axe.run(document, {resultTypes: ["violations"]}).then((r) => r.violations)`, &found)
	for _, v := range found {
		for _, n := range v.Nodes {
			tab.t.Errorf("accessibility of %s: axe %s: %s: %s: %s", view, v.ID, v.Help, n.HTML, n.FailureSummary)
		}
	}
}

// FocusOrder presses Tab up to max times from the start of the page and gives the ids
// (or names) of what had the focus. It fails for a focus that cannot be seen.
func (tab *Tab) FocusOrder(most int) []string {
	tab.t.Helper()
	tab.Eval(`(document.activeElement?.blur(), document.body.tabIndex = -1, document.body.focus(), document.body.removeAttribute("tabindex"))`, nil)
	var order []string
	for range most {
		tab.Press(kb.Tab)
		var at struct {
			Name string
			Seen bool
			Body bool
		}
		tab.Eval(`(() => { const e = document.activeElement, s = getComputedStyle(e);
			return {name: e.id || e.getAttribute("aria-label") || e.textContent.trim().slice(0, 30), body: e === document.body,
				seen: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 1}; })()`, &at)
		if at.Body {
			break
		}
		if !at.Seen {
			tab.t.Errorf("the focus on %s cannot be seen", at.Name)
		}
		order = append(order, at.Name)
	}
	return order
}

// axe gives the source of axe-core from the cache, or from npm on first use.
func axe(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "tracegate", "axe-core")
	file := filepath.Join(dir, "axe-core-"+axeVersion+".tgz")
	if verify(file) != nil {
		if err := fetch(ctx, dir); err != nil {
			return "", err
		}
		if err := verify(file); err != nil {
			return "", err
		}
	}
	out, err := exec.CommandContext(ctx, "tar", "-xzOf", file, "package/axe.min.js").Output()
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", file, err)
	}
	return string(out), nil
}

func fetch(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "pack", "--silent", "axe-core@"+axeVersion)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm pack axe-core: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func verify(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	sum := sha512.Sum512(b)
	if got := "sha512-" + base64.StdEncoding.EncodeToString(sum[:]); got != axeIntegrity {
		return fmt.Errorf("%s has the integrity %s", filepath.Base(file), got)
	}
	return nil
}
