package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"testing"

	"github.com/chromedp/chromedp"
)

// maxForms bounds the forms of one login.
const maxForms = 10

// A Page is one tab.
type Page struct {
	ctx context.Context
}

// A Document is the result of a navigation, after all redirects.
type Document struct {
	URL    string
	Status int
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

func (p *Page) navigate(t testing.TB, step chromedp.Action[chromedp.Void]) Document {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, actionLimit)
	defer cancel()
	resp, err := chromedp.RunResponse(ctx, step)
	if err != nil {
		t.Fatalf("navigating: %v", err)
	}
	if resp == nil {
		t.Fatal("navigating: the browser got no answer")
	}
	return Document{URL: p.URL(t), Status: int(resp.Status)}
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
