package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// maxForms bounds the forms of one login.
const maxForms = 10

// A Page is one tab.
type Page struct {
	ctx context.Context
	mu  sync.Mutex
	// requested has the URLs of the documents that the tab has requested since the user's last action.
	requested []string
}

// A Document is the result of a navigation, after all redirects.
type Document struct {
	URL    string
	Status int
	// Via has the URLs that led the tab to URL without the user: they redirected, or their page went on by itself.
	Via []string
}

// noteRequest notes a request of the tab for a document. A redirect leads to a request of its own.
func (p *Page) noteRequest(event any) {
	sent, ok := event.(*network.EventRequestWillBeSent)
	if !ok || sent.Type != network.ResourceTypeDocument || string(sent.FrameID) != string(chromedp.FromContext(p.ctx).Target.TargetID) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requested = append(p.requested, sent.Request.URL)
}

// takeRequested returns the noted URLs and forgets them.
func (p *Page) takeRequested() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	urls := p.requested
	p.requested = nil
	return urls
}

// Open opens the URL as if the user had typed it, and waits until the page has loaded.
func (p *Page) Open(t testing.TB, rawURL string) Document {
	t.Helper()
	return p.navigate(t, chromedp.Navigate(rawURL))
}

// Reload loads the page again.
func (p *Page) Reload(t testing.TB) Document {
	t.Helper()
	return p.navigate(t, chromedp.Reload())
}

// Back goes back in the tab's history.
func (p *Page) Back(t testing.TB) Document {
	t.Helper()
	return p.navigate(t, chromedp.NavigateBack())
}

// Click clicks the element with the CSS selector and waits until the next page has loaded.
func (p *Page) Click(t testing.TB, selector string) Document {
	t.Helper()
	return p.navigate(t, chromedp.Click(chromedp.CSS(selector)))
}

// Press clicks the element with the CSS selector and does not wait for a page. It also works in a frame, whose process may end
// with the click: the answer of the browser is then lost.
func (p *Page) Press(t testing.TB, selector string) {
	t.Helper()
	if !Eval[bool](t, p, call(t, `(selector) => document.querySelector(selector) !== null`, selector)) {
		t.Fatalf("got page %s, want an element %s", p.Text(t), selector)
	}
	ctx, cancel := context.WithCancel(p.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = chromedp.Run(ctx, chromedp.Evaluate[bool](call(t, `(selector) => { document.querySelector(selector).click(); return true }`, selector)))
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// Login opens the URL and submits the forms of the authorization server until a page of the URL's origin has loaded. It
// returns that page.
func (p *Page) Login(t testing.TB, rawURL, user, password string) Document {
	t.Helper()
	doc := p.Open(t, rawURL)
	for range maxForms {
		if origin(t, doc.URL) == origin(t, rawURL) {
			return doc
		}
		doc = p.SubmitForm(t, user, password)
	}
	t.Fatalf("login: got no page of %s after %d forms", rawURL, maxForms)
	return doc
}

// fillForm fills in the first form and presses its first button. Fields of type or name "password" get the password, other
// text fields the user name. It returns whether the page has a form.
const fillForm = `(user, password) => {
	const form = document.forms[0];
	if (!form) return false;
	for (const field of form.elements) {
		if (field.type === 'password' || field.name === 'password') field.value = password;
		else if (field.type === 'text' || field.type === 'email') field.value = user;
	}
	[...form.elements].find((e) => e.type === 'submit').click();
	return true;
}`

// SubmitForm fills in and submits the first form of the page and waits until the next page has loaded.
func (p *Page) SubmitForm(t testing.TB, user, password string) Document {
	t.Helper()
	return p.navigate(t, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		found, err := chromedp.Evaluate[bool](call(t, fillForm, user, password))(ctx, target)
		if err == nil && !found {
			err = errors.New("the page has no form")
		}
		return err
	}))
}

// OpenAll opens the n-th URL in the n-th page, all at the same time, and waits until all pages have loaded.
func OpenAll(t testing.TB, pages []*Page, rawURLs []string) []Document {
	t.Helper()
	documents, errs := make([]Document, len(pages)), make([]error, len(pages))
	var all sync.WaitGroup
	for i, p := range pages {
		all.Go(func() { documents[i], errs[i] = p.tryNavigate(chromedp.Navigate(rawURLs[i])) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("opening %d pages: %v", len(pages), err)
	}
	return documents
}

// BeginSubmit fills in and submits the first form of the page, and does not wait for the next page.
func (p *Page) BeginSubmit(t testing.TB, user, password string) {
	t.Helper()
	// The button is pressed after the evaluation, which a navigation would interrupt.
	Eval[bool](t, p, "(setTimeout(() => "+call(t, fillForm, user, password)+"), true)")
}

// A Shown is a page that has loaded.
type Shown struct{ URL, Text string }

// Await waits until reached accepts the page, and returns it. Pages on the way may go on by themselves.
func (p *Page) Await(t testing.TB, reached func(Shown) bool) Shown {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, actionLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last Shown
	for {
		// An error is that of a page that is being left.
		now, err := chromedp.Run(ctx, chromedp.Evaluate[Shown](
			`document.readyState === 'complete' ? { URL: location.href, Text: document.documentElement.innerText.trim() } : {}`))
		if err == nil && now.URL != "" {
			if last = now; reached(now) {
				return now
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting for a page: the last one was %s: %s", last.URL, last.Text)
		}
	}
}

// History returns the addresses in the tab's history.
func (p *Page) History(t testing.TB) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, actionLimit)
	defer cancel()
	history, err := chromedp.Call(ctx, page.GetNavigationHistory, cdp.Empty{})
	if err != nil {
		t.Fatalf("reading the history: %v", err)
	}
	var urls []string
	for _, entry := range history.Entries {
		urls = append(urls, entry.URL)
	}
	return urls
}

func (p *Page) navigate(t testing.TB, step chromedp.Action[chromedp.Void]) Document {
	t.Helper()
	doc, err := p.tryNavigate(step)
	if err != nil {
		t.Fatalf("navigating: %v", err)
	}
	return doc
}

func (p *Page) tryNavigate(step chromedp.Action[chromedp.Void]) (Document, error) {
	ctx, cancel := context.WithTimeout(p.ctx, actionLimit)
	defer cancel()
	p.takeRequested()
	resp, err := chromedp.RunResponse(ctx, step)
	if err != nil {
		return Document{}, err
	}
	if resp == nil {
		return Document{}, errors.New("the browser got no answer")
	}
	address, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href`))
	via := p.takeRequested()
	return Document{URL: address, Status: int(resp.Status), Via: via[:max(0, len(via)-1)]}, err
}

// URL returns the address of the page.
func (p *Page) URL(t testing.TB) string {
	t.Helper()
	return Eval[string](t, p, `location.href`)
}

// Text returns the visible text of the page, trimmed.
func (p *Page) Text(t testing.TB) string {
	t.Helper()
	return Eval[string](t, p, `document.documentElement.innerText.trim()`)
}

// Eval evaluates a JavaScript expression in the page and decodes its value. It awaits a promise.
func Eval[T any](t testing.TB, p *Page, expression string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, actionLimit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("evaluating in the page: %v", err)
	}
	return v
}

// call returns a JavaScript expression that calls the function with the arguments.
func call(t testing.TB, function string, args ...any) string {
	t.Helper()
	list, err := json.Marshal(args)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("(%s)(...%s)", function, list)
}

func origin(t testing.TB, rawURL string) string {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Scheme + "://" + u.Host
}
