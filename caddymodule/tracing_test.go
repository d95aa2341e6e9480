package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session"
)

// spanRecorder is a handler that puts a recording span around each request, as Caddy's
// directive tracing does.
type spanRecorder struct{}

var (
	recordedSpans = tracetest.NewSpanRecorder()
	tracerForTest = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recordedSpans)).Tracer("test")
)

func (spanRecorder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.record_spans", New: func() caddy.Module { return new(spanRecorder) }}
}

func (spanRecorder) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ctx, span := tracerForTest.Start(r.Context(), "request")
	defer span.End()
	return next.ServeHTTP(w, r.WithContext(ctx))
}

func init() {
	caddy.RegisterModule(spanRecorder{})
	httpcaddyfile.RegisterHandlerDirective("record_spans", func(httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) { return spanRecorder{}, nil })
	httpcaddyfile.RegisterDirectiveOrder("record_spans", httpcaddyfile.Before, "tracing")
}

// TestSpansAroundServerAndStore: a login and a refresh have spans for the token endpoint
// and for the store, below that of the request, and no secret.
func TestSpansAroundServerAndStore(t *testing.T) {
	w := newWorld(t)
	w.load(strings.Replace(site("", ""), "oauth_session {", "record_spans\noauth_session {", 1))
	w.as.Set(func(k *fakeas.Knobs) { k.LoginAnswer.Set = map[string]any{"expires_in": 0.000001} })
	newBrowser(t, w.origin).login("/")
	spans := recordedSpans.Ended()
	var names []string
	parents := map[trace.SpanID]bool{}
	for _, s := range spans {
		if s.Name() == "request" {
			parents[s.SpanContext().SpanID()] = true
		}
	}
	tokenCalls := 0
	for _, s := range spans {
		names = append(names, s.Name())
		if s.Name() != "request" && !parents[s.Parent().SpanID()] {
			t.Errorf("%s: got a span that is below no request", s.Name())
		}
		for _, a := range s.Attributes() {
			text := a.Value.Emit()
			if strings.Contains(text, "?") || strings.Contains(text, "CODE_") || strings.Contains(text, testSecret) {
				t.Errorf("%s: got %s=%s", s.Name(), a.Key, text)
			}
			if a.Key == "url.full" && strings.HasSuffix(text, "/token") {
				tokenCalls++
			}
		}
	}
	if tokenCalls != 2 { // the code, and the refresh that the request waited for
		t.Errorf("got %d spans of the token endpoint, want 2: %v", tokenCalls, names)
	}
	for _, want := range []string{"session store create", "session store read", "session store replace"} {
		if !slices.Contains(names, want) {
			t.Errorf("got spans %v, want %q", names, want)
		}
	}
}

// TestStoreErrorIsInTheSpan, and an answer of a store that works is none.
func TestStoreErrorIsInTheSpan(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	ctx, span := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test").Start(t.Context(), "request")
	defer span.End()
	s := &lazyStore{name: "test"}
	_ = s.call(ctx, "create", func(context.Context) error { return errors.New("disk full") })
	_ = s.call(ctx, "replace", func(context.Context) error { return session.ErrConflict })
	_ = s.call(t.Context(), "delete", func(context.Context) error { return nil }) // not traced
	ended := recorder.Ended()
	if len(ended) != 2 || ended[0].Status().Description != "disk full" || ended[1].Status().Description != "" {
		t.Errorf("got %+v, want an error in the first of two spans", ended)
	}
}
