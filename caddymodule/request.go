package caddymodule

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// origin returns the origin that the browser sees: base_url, or the origin of the
// request. X-Forwarded-* headers count only if Caddy trusts the sender. Of several values
// the last one counts, because the trusted proxy itself has written it. Package handler
// makes the result canonical.
func (h *Handler) origin(r *http.Request) (string, error) {
	if h.baseURL != "" {
		return h.baseURL, nil
	}
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted {
		if proto := lastValue(r.Header, "X-Forwarded-Proto"); proto != "" {
			scheme = forwardedScheme(proto)
		}
		if forwarded := lastValue(r.Header, "X-Forwarded-Host"); forwarded != "" {
			host = forwarded
		}
	}
	return scheme + "://" + host, nil
}

// forwardedScheme returns the scheme of the site for a value of X-Forwarded-Proto.
// Traefik writes wss or ws there for the handshake of a WebSocket.
func forwardedScheme(proto string) string {
	switch {
	case strings.EqualFold(proto, "wss"):
		return "https"
	case strings.EqualFold(proto, "ws"):
		return "http"
	}
	return proto
}

func lastValue(header http.Header, name string) string {
	values := header[name]
	if len(values) == 0 {
		return ""
	}
	last := values[len(values)-1]
	return strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
}

// originalURL returns the URL from before any rewrite in Caddy.
func originalURL(r *http.Request) *url.URL {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return original.URL
	}
	return r.URL
}

// keepOutOfAccessLog excludes a request from Caddy's access log.
func keepOutOfAccessLog(r *http.Request) {
	caddyhttp.SetVar(r.Context(), caddyhttp.LogSkipVar, true)
}

const tokenPlaceholder = "{token}"

// headerTemplate is a header's value, split at {token}. The token never passes through a
// Replacer, which would expand placeholders in it.
type headerTemplate struct{ parts []string }

func newHeaderTemplate(value string) headerTemplate {
	return headerTemplate{parts: strings.Split(value, tokenPlaceholder)}
}

func (t headerTemplate) value(r *http.Request, token string) string {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	var b strings.Builder
	for i, part := range t.parts {
		if i > 0 {
			b.WriteString(token)
		}
		if ok {
			part = repl.ReplaceAll(part, "")
		}
		b.WriteString(part)
	}
	return b.String()
}
