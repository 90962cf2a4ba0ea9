package browsertest

import (
	_ "embed"
	"log/slog"
	"os"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/tracegate/tracegate/edge/artifact/engine"
)

//go:embed audit.js
var audit string

// Accessible fails the test for everything that can be found by computing: by the
// checks of audit.js always, by axe-core where it is to be had. Where it is not, that part
// is shown as skipped; with CI=true the test fails.
func (tab *Tab) Accessible(view string) {
	tab.t.Helper()
	var findings []string
	tab.Eval(audit, &findings)
	for _, f := range findings {
		tab.t.Errorf("accessibility of %s: %s", view, f)
	}
	source, err := tab.axe()
	if err != nil {
		tab.t.Run("axe-core on "+view, func(t *testing.T) {
			if os.Getenv("CI") == "true" {
				t.Fatalf("CI=true, and no axe-core: %v", err)
			}
			t.Skip(err)
		})
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

// axeSource reads axe-core, which is fetched on first use.
func axeSource(t *testing.T) (string, error) {
	path, err := engine.AxeCore(t.Context(), slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(path)
	return string(source), err
}
