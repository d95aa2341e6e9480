package handler

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestRequirementsCompareClaimsWhole(t *testing.T) {
	many := `["` + strings.Repeat(`x","`, 10000) + `admin"]`
	for _, tt := range []struct {
		claims, claim string
		values        string // separated by |
		ok            bool
	}{
		{`{"email":"a@corp.test"}`, "email", "a@corp.test", true},
		{`{"email":"a@corp.test"}`, "email", "b@corp.test|a@corp.test", true},
		{`{"email":"a@evil.test@corp.test"}`, "email", "a@corp.test", false},
		{`{"email":"a@CORP.TEST"}`, "email", "a@corp.test", false},
		{`{"email":"a@corp.test.evil.test"}`, "email", "a@corp.test", false},
		{`{"email":" a@corp.test"}`, "email", "a@corp.test", false},
		{`{"email":"a@corp.test\u0000"}`, "email", "a@corp.test", false},
		{`{"EMAIL":"a@corp.test"}`, "email", "a@corp.test", false},
		{`{"email":"a","email":"b"}`, "email", "a", false}, // the last one counts
		{`{"email_verified":true}`, "email_verified", "true", true},
		{`{"email_verified":false}`, "email_verified", "true", false},
		{`{}`, "email_verified", "true", false},
		{`{"email_verified":null}`, "email_verified", "null", false},
		{`{"email_verified":null}`, "email_verified", "", false},
		{`{"groups":[null]}`, "groups", "null", false},
		{`{"groups":"admin"}`, "groups", "admin", true},
		{`{"groups":["users","admin"]}`, "groups", "admin", true},
		{`{"groups":["users","admin "]}`, "groups", "admin", false},
		{`{"groups":["ａｄｍｉｎ","аdmin"]}`, "groups", "admin", false},
		{`{"groups":"users,admin"}`, "groups", "admin", false},
		{`{"groups":"users admin"}`, "groups", "admin", false},
		{`{"groups":[["admin"]]}`, "groups", "admin", false},
		{`{"groups":[{"name":"admin"}]}`, "groups", "admin", false},
		{`{"groups":{"admin":true}}`, "groups", "admin", false},
		{`{"groups":[]}`, "groups", "", false},
		{`{"groups":[""]}`, "groups", "", true},
		{`{"groups":` + many + `}`, "groups", "admin", true},
		{`{"groups":` + many + `}`, "groups", "root", false},
		{`{"_claim_names":{"groups":"src1"}}`, "groups", "admin", false},
		{`{"level":3}`, "level", "3", true},
		{`{"level":3.0}`, "level", "3", false},
		{`{"level":"3"}`, "level", "3", true},
		{`{"realm_access":{"roles":["admin"]}}`, "realm_access.roles", "admin", true},
		{`{"realm_access":{"roles":["admin"]}}`, "realm_access", "admin", false},
		{`{"realm_access":"roles"}`, "realm_access.roles", "admin", false},
		{`{"https://app.test/roles":["admin"]}`, "https://app.test/roles", "admin", true},
		{`{"a.b":{"c.d":"x"}}`, "a.b.c.d", "x", true},
		{`{"a":{"b":"x"},"a.b":"y"}`, "a.b", "y", true},
		{``, "email", "", false},
		{`[]`, "email", "", false},
		{`not json`, "email", "", false},
	} {
		h := &Handler{Config: Config{Require: []Requirement{{Claim: tt.claim, Values: strings.Split(tt.values, "|")}}}}
		if got := h.unmetRequirement(json.RawMessage(tt.claims)) == nil; got != tt.ok {
			t.Errorf("%.60s: %s %s: got %v, want %v", tt.claims, tt.claim, tt.values, got, tt.ok)
		}
	}
	all := &Handler{Config: Config{Require: []Requirement{{"a", []string{"1"}}, {"b", []string{"1"}}}}}
	if all.unmetRequirement(json.RawMessage(`{"a":"1"}`)) == nil || all.unmetRequirement(json.RawMessage(`{"a":"1","b":"1"}`)) != nil {
		t.Error("got a met requirement, want all of them compared")
	}
}

// TestRefusedUserCanSwitchAccounts or sign out.
func TestRefusedUserCanSwitchAccounts(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.Require = []Requirement{{"email", []string{"bob@example.test"}}} })
	b := g.browser()
	a := b.open("/wanted?x=1")
	if a.status != 403 || a.relayed != 0 || !strings.Contains(a.body, `action="/oauth2/logout"`) || !strings.Contains(a.body, "prompt=login") ||
		!strings.Contains(a.body, "return_to=%2Fwanted%3Fx%3D1") || strings.Contains(a.body, "alice") {
		t.Errorf("got status %d: %s, want 403 with ways out", a.status, a.body)
	}
	if p := b.fetch("GET", "/api"); p.status != 403 || p.problem(t).Code != "forbidden" || p.relayed != 0 {
		t.Errorf("a script: got status %d, want 403: %s", p.status, p.body)
	}
	if p := b.fetch("OPTIONS", "/api"); p.status != 403 || p.relayed != 0 {
		t.Errorf("OPTIONS: got status %d, want 403", p.status)
	}
	b.wantAppAt(b.open("/oauth2/login?prompt=login&login_hint=bob&return_to=%2Fwanted%3Fx%3D1"), "/wanted?x=1")
}

// FuzzClaim: search and comparison of claims terminate for any input, and find
// nothing that is not there.
func FuzzClaim(f *testing.F) {
	f.Add(`{"a":{"b":["c",1,true,null]},"a.b":"x"}`, "a.b", "c")
	f.Add(`{"":{"":{"":"x"}}}`, "..", "x")
	f.Add(`{"a":{"a":{"a":{}}},"a.a":{"a.a":1}}`, "a.a.a.a.a", "1")
	f.Fuzz(func(t *testing.T, claims, name, value string) {
		if len(name) > 40 {
			return // names are configured
		}
		h := &Handler{Config: Config{Require: []Requirement{{name, []string{value}}}}}
		found, ok := findClaim(json.RawMessage(claims), name)
		if ok && !json.Valid(found) {
			t.Fatalf("claim %q of %q: got %q, want a part of the claims", name, claims, found)
		}
		if h.unmetRequirement(json.RawMessage(claims)) != nil {
			return
		}
		if !ok {
			t.Fatalf("claims %q: got a met requirement without the claim %q", claims, name)
		}
		// A matching value contains the wanted text, alone or in a list.
		var members []json.RawMessage
		if json.Unmarshal(found, &members) != nil {
			members = []json.RawMessage{found}
		}
		for _, m := range members {
			if text, ok := ClaimText(m); ok && text == value {
				return
			}
		}
		t.Fatalf("value %s: got a match with %q, want none", fmt.Sprintf("%.200q", found), value)
	})
}
