package browser

import "testing"

// A Request holds the arguments of fetch(), without the URL.
type Request struct {
	Method  string            `json:"method,omitempty"` // default: GET
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
}

// A Response is the result of fetch() in the page.
type Response struct {
	Status     int               `json:"status"` // 0 when the promise was rejected
	URL        string            `json:"url"`
	Redirected bool              `json:"redirected"`
	Headers    map[string]string `json:"headers"` // the headers that the page may read, in lower case
	Body       string            `json:"body"`
	Error      string            `json:"error"` // of the rejected promise
}

// fetchMany sends the same request n times in parallel. It bypasses the browser's cache, which would serialise them.
const fetchMany = `(url, request, n) => Promise.all(Array.from({ length: n }, async () => {
	try {
		const r = await fetch(url, { ...request, cache: 'no-store' });
		return { status: r.status, url: r.url, redirected: r.redirected, headers: Object.fromEntries(r.headers), body: await r.text() };
	} catch (e) {
		return { status: 0, error: String(e) };
	}
}))`

// Fetch calls fetch() in the page, with the page's cookies. The URL may be relative.
func (p *Page) Fetch(t testing.TB, url string, r Request) Response {
	t.Helper()
	return p.FetchAll(t, url, r, 1)[0]
}

// FetchAll calls fetch() n times in parallel. Over HTTP/1.1, Chromium sends at most 6 requests to one host at a time and
// queues the others.
func (p *Page) FetchAll(t testing.TB, url string, r Request, n int) []Response {
	t.Helper()
	return Eval[[]Response](t, p, call(t, fetchMany, url, r, n))
}
