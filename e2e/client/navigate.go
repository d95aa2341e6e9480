package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// maxHops bounds a chain of redirects and forms.
const maxHops = 30

var errTooManyHops = errors.New("too many redirects and forms")

// A navigation is one act of the user (a typed address, a submitted form) and its redirects.
type navigation struct {
	from  *url.URL   // the page that started it; nil for a typed address
	chain []*url.URL // the requested URLs so far, for Sec-Fetch-Site
}

// Navigate opens the URL like a typed address. It returns the first answer and follows no redirects.
func (c *Client) Navigate(ctx context.Context, rawURL string) (*Response, error) {
	return c.hop(ctx, &navigation{}, http.MethodGet, rawURL, nil)
}

// NavigateFrom is Navigate for a link on the page with the URL from.
func (c *Client) NavigateFrom(ctx context.Context, from, rawURL string) (*Response, error) {
	page, err := url.Parse(from)
	if err != nil {
		return nil, err
	}
	return c.hop(ctx, &navigation{from: page}, http.MethodGet, rawURL, nil)
}

// Visit opens the URL like a typed address and follows redirects.
func (c *Client) Visit(ctx context.Context, rawURL string) (*Response, error) {
	nav := &navigation{}
	resp, err := c.hop(ctx, nav, http.MethodGet, rawURL, nil)
	if err != nil {
		return nil, err
	}
	return c.follow(ctx, nav, resp)
}

// Login opens the URL, follows redirects and submits the forms of the authorization server until it reaches a page of the
// URL's origin. It returns that page.
func (c *Client) Login(ctx context.Context, rawURL string) (*Response, error) {
	return c.LoginTo(ctx, rawURL, rawURL)
}

// LoginTo is Login that stops at a page of the origin of end.
func (c *Client) LoginTo(ctx context.Context, rawURL, end string) (*Response, error) {
	page, err := c.Visit(ctx, rawURL)
	if err != nil {
		return nil, err
	}
	return c.Finish(ctx, page, end)
}

// Finish continues a login from a form of the authorization server to a page of the origin of end.
func (c *Client) Finish(ctx context.Context, page *Response, end string) (*Response, error) {
	target, err := url.Parse(end)
	if err != nil {
		return nil, err
	}
	for err == nil && origin(page.URL) != origin(target) {
		if len(page.Via) > maxHops {
			return nil, errTooManyHops
		}
		page, err = c.Submit(ctx, page)
	}
	return page, err
}

// Submit fills in and submits the first form of the page and follows redirects.
func (c *Client) Submit(ctx context.Context, page *Response) (*Response, error) {
	form, err := parseForm(page.Body)
	if err != nil {
		return nil, fmt.Errorf("%w in %v", err, page)
	}
	target, err := page.URL.Parse(form.action)
	if err != nil {
		return nil, fmt.Errorf("reading the form's action: %w", err)
	}
	values := form.fill(c.User, c.Password)
	nav := &navigation{from: page.URL}
	var resp *Response
	if form.method == http.MethodPost {
		resp, err = c.hop(ctx, nav, http.MethodPost, target.String(), values)
	} else {
		target.RawQuery = values.Encode()
		resp, err = c.hop(ctx, nav, http.MethodGet, target.String(), nil)
	}
	if err != nil {
		return nil, err
	}
	resp.Via = append(append(resp.Via, page.Via...), page.withoutVia())
	return c.follow(ctx, nav, resp)
}

func (c *Client) follow(ctx context.Context, nav *navigation, resp *Response) (*Response, error) {
	for resp.Location() != nil {
		if len(resp.Via) > maxHops {
			return nil, errTooManyHops
		}
		via := append(resp.Via, resp.withoutVia())
		// GET after any method: no login uses 307 or 308, which would keep the method.
		next, err := c.hop(ctx, nav, http.MethodGet, resp.Location().String(), nil)
		if err != nil {
			return nil, err
		}
		next.Via = via
		resp = next
	}
	return resp, nil
}

func (r *Response) withoutVia() *Response {
	one := *r
	one.Via = nil
	return &one
}

// hop sends one request of a navigation with Chrome's headers.
func (c *Client) hop(ctx context.Context, nav *navigation, method, rawURL string, form url.Values) (*Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, rawURL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	nav.chain = append(nav.chain, req.URL)
	req.Header.Set("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8")
	req.Header.Set("Accept-Language", "en-US,en;q=0.9")
	req.Header.Set("Upgrade-Insecure-Requests", "1")
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36")
	if trustworthy(req.URL) {
		req.Header.Set("Sec-Fetch-Site", nav.fetchSite())
		req.Header.Set("Sec-Fetch-Mode", "navigate")
		req.Header.Set("Sec-Fetch-Dest", "document")
		req.Header.Set("Sec-Fetch-User", "?1")
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", origin(nav.from))
	}
	return c.send(req, nav.initiator(req))
}

// fetchSite returns the value of Sec-Fetch-Site, which depends on the whole chain of redirects (Fetch Metadata Request
// Headers, "Set the Sec-Fetch-Site header for a request").
func (n *navigation) fetchSite() string {
	if n.from == nil {
		return "none"
	}
	value := "same-origin"
	for _, u := range n.chain {
		if site(u) != site(n.from) {
			return "cross-site"
		}
		if origin(u) != origin(n.from) {
			value = "same-site"
		}
	}
	return value
}

// initiator returns the initiator of a request for SameSite. Unlike Sec-Fetch-Site, it does not depend on redirects.
func (n *navigation) initiator(req *http.Request) initiator {
	switch {
	case n.from == nil || site(n.from) == site(req.URL):
		return sameSite
	case req.Method == http.MethodGet:
		return crossSiteSafe
	default:
		return crossSiteForbidden
	}
}
