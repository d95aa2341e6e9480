package handler

import (
	"net/http"
	"strings"
	"time"
)

// noteStream tells the keeper if the answer is a stream, when its header is written. A
// request counts as use of its session while it is in progress, but an open WebSocket or
// event stream does not: it is open without its user, too. Decision 0029 has the reasons.
func (g *cookieGuard) noteStream(status int) {
	if g.attachment == nil || !g.isStream(status) {
		return
	}
	var end time.Time
	if g.handler.CloseExpiredStreams {
		end = g.session.TokenUsableUntil
	}
	g.attachment.BecomeStream(end)
}

// isStream reports whether an answer is a WebSocket or an event stream. The method
// CONNECT is that of a WebSocket over HTTP/2 or HTTP/3 (see isExtendedConnect).
func (g *cookieGuard) isStream(status int) bool {
	return status == http.StatusSwitchingProtocols || g.request.Method == http.MethodConnect || isEventStream(g.header["Content-Type"])
}

// isEventStream reports whether an answer has the media type of server-sent events, with
// any parameters.
func isEventStream(contentType []string) bool {
	if len(contentType) == 0 {
		return false
	}
	mediaType, _, _ := strings.Cut(contentType[0], ";")
	return strings.EqualFold(strings.Trim(mediaType, " \t"), "text/event-stream")
}
