package fakeas

import "time"

// LogoutDefect is one error in a logout token.
type LogoutDefect struct {
	Name string
	Edit TokenEdit
}

// LogoutDefects lists the logout tokens that a client must refuse, although they
// name a subject or a session. A missing exp is not among them: iat bounds such a
// token. Some defects concern logout tokens only, the
// others are Defects of any token.
func LogoutDefects() []LogoutDefect {
	set := func(name string, value any) TokenEdit {
		return TokenEdit{Claims: Edit{Set: map[string]any{name: value}}}
	}
	omit := func(names ...string) TokenEdit { return TokenEdit{Claims: Edit{Omit: names}} }
	ago := time.Now().Add(-time.Hour).Unix()
	all := []LogoutDefect{
		{"no_events", omit("events")},
		{"events_list", set("events", []string{logoutEvent})},
		{"events_string", set("events", logoutEvent)},
		{"events_null", set("events", nil)},
		{"wrong_event", set("events", map[string]any{logoutEvent + "x": map[string]any{}})},
		{"event_string", set("events", map[string]any{logoutEvent: "{}"})},
		{"nonce", set("nonce", "a-nonce")},
		{"no_sub_no_sid", omit("sub", "sid")},
		{"no_jti", omit("jti")},
		{"iat_hour_ago", set("iat", ago)},
	}
	for _, d := range []Defect{
		DefectIssuer, DefectIssuerSlash, DefectNoIssuer, DefectAudience, DefectAudienceOther, DefectNoAudience, DefectAZP,
		DefectExpired, DefectExpiredFlipped, DefectIssuedLater, DefectNotBefore, DefectNoIssuedAt,
		DefectKey, DefectFlipped, DefectNoSignature, DefectNone, DefectNoneMixed, DefectNoneUpper,
		DefectHMACSecret, DefectHMACPEM, DefectHMACDER, DefectKeyType, DefectKeyID, DefectEmbeddedKey,
		DefectTypeAccess, DefectCritical, DefectNotJWT,
	} {
		all = append(all, LogoutDefect{string(d), TokenEdit{Defect: d}})
	}
	return all
}
