package browser

import (
	"context"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// MouseClick moves the mouse to the element with the CSS selector and clicks. It does not wait for a page. Some elements
// listen to the mouse only.
func (p *Page) MouseClick(t testing.TB, selector string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, actionLimit)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector))); err != nil {
		t.Fatalf("clicking %s: %v", selector, err)
	}
}

// AcceptDialogs presses the first button of every dialog that the browser shows from now on, such as the question whether to
// leave a page with unsaved changes.
func (p *Page) AcceptDialogs() {
	dialogs := chromedp.Events(p.ctx, page.JavascriptDialogOpening)
	go func() {
		for range dialogs {
			// An error means that the page has been closed.
			_, _ = chromedp.Call(p.ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true})
		}
	}()
}

// Front shows the tab, and hides the others. The browser slows down the timers of hidden tabs.
func (p *Page) Front(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, actionLimit)
	defer cancel()
	if _, err := chromedp.Call(ctx, page.BringToFront, cdp.Empty{}); err != nil {
		t.Fatalf("showing the tab: %v", err)
	}
}
