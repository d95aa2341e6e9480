package caddymodule

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// tracerName is the instrumentation scope of the spans.
const tracerName = "github.com/oauth-session/caddy-oauth-session"

// storeAttribute names the store of a span, as metrics do.
const storeAttribute = "oauth_session.store"

// isTraced reports whether a span around the caller records.
func isTraced(ctx context.Context) bool { return trace.SpanFromContext(ctx).IsRecording() }

// startSpan starts a span below that of Caddy's tracing directive. Without one that
// records, it returns nil. A span has no user, no token and no query.
func startSpan(ctx context.Context, name string, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, nil
	}
	return parent.TracerProvider().Tracer(tracerName).Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
}

// endSpan ends a span, or does nothing for nil.
func endSpan(span trace.Span, err error) {
	if span == nil {
		return
	}
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// traceServerCall is oauth.Config.Trace.
func traceServerCall(ctx context.Context, method, url string) (context.Context, func(status int, err error)) {
	ctx, span := startSpan(ctx, "authorization server "+method, attribute.String("http.request.method", method), attribute.String("url.full", url))
	return ctx, func(status int, err error) {
		if span == nil {
			return
		}
		if status != 0 {
			span.SetAttributes(attribute.Int("http.response.status_code", status))
		}
		if status >= http.StatusBadRequest {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
		endSpan(span, err)
	}
}
