package fakeas

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestStrictRotationRefusesReuse(t *testing.T) {
	for _, revokes := range []bool{true, false} {
		g := newRig(t, func(k *Knobs) { k.ReuseRevokes = revokes })
		first := g.login("scope", "api")
		second := g.wantRefreshed(first.text("refresh_token"))
		if second.text("refresh_token") == first.text("refresh_token") || second.text("access_token") == first.text("access_token") {
			t.Fatal("the refresh did not replace both tokens")
		}
		g.wantError(g.refresh(first.text("refresh_token")), 400, "invalid_grant")
		if g.valid(second.text("access_token")) == revokes {
			t.Errorf("revokes %t: got valid access token %t, want %t", revokes, revokes, !revokes)
		}
		if r := g.refresh(second.text("refresh_token")); (r.status == 200) == revokes {
			t.Errorf("revokes %t: refresh with the newest token: got status %d, want success: %t", revokes, r.status, !revokes)
		}
		st := g.as.Stats()
		if st.Reuses != 1 || len(st.RedeemedTwice) != 0 || st.Presented[first.text("refresh_token")] != 2 || st.Redeemed[first.text("refresh_token")] != 1 {
			t.Errorf("got stats %+v, want one reuse and one redemption of the first token", st)
		}
	}
}

func TestWithoutRotationATokenServesManyTimes(t *testing.T) {
	for _, mode := range []Rotation{RotateNever, RotateSame} {
		g := newRig(t, func(k *Knobs) { k.Rotation = mode })
		token := g.login("scope", "api").text("refresh_token")
		for range 3 {
			_, present := g.wantRefreshed(token).json["refresh_token"]
			if present != (mode == RotateSame) {
				t.Errorf("%s: got refresh_token in the answer: %t, want %t", mode, present, mode == RotateSame)
			}
		}
		st := g.as.Stats()
		if st.Reuses != 0 || st.Redeemed[token] != 3 || len(st.RedeemedTwice) != 1 {
			t.Errorf("%s: got stats %+v, want three redemptions of one token", mode, st)
		}
	}
}

func TestOverlapAcceptsTheFormerTokenForItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, func(k *Knobs) { k.Rotation, k.Overlap, k.OverlapFor = RotateOverlap, 1, 10*time.Second })
		one := g.login("scope", "api").text("refresh_token")
		two := g.wantRefreshed(one).text("refresh_token")
		time.Sleep(9 * time.Second)
		three := g.wantRefreshed(one).text("refresh_token") // one is the former token, within OverlapFor
		if st := g.as.Stats(); len(st.RedeemedTwice) != 1 || st.RedeemedTwice[0] != one || st.Reuses != 0 {
			t.Errorf("got stats %+v, want two redemptions of the first token", st)
		}
		four := g.wantRefreshed(two).text("refresh_token") // two is now the former token
		time.Sleep(11 * time.Second)
		five := g.wantRefreshed(three) // OverlapFor starts at the redemption, and three had none
		g.wantError(g.refresh(two), 400, "invalid_grant")
		g.wantError(g.refresh(four), 400, "invalid_grant") // the family is revoked
		if g.valid(five.text("access_token")) {
			t.Error("the access token is valid after the revocation of its family")
		}
	})
}

func TestOverlapWithoutTimeLimitCountsGenerations(t *testing.T) {
	g := newRig(t, func(k *Knobs) { k.Rotation, k.Overlap = RotateOverlap, 2 })
	one := g.login("scope", "api").text("refresh_token")
	two := g.wantRefreshed(one).text("refresh_token")
	g.wantRefreshed(two)
	g.wantRefreshed(one)                              // two generations old
	g.wantError(g.refresh(one), 400, "invalid_grant") // three generations old
	if st := g.as.Stats(); st.Reuses != 1 || len(st.RedeemedTwice) != 1 {
		t.Errorf("got stats %+v, want one reuse and one token redeemed twice", st)
	}
}

// TestNewestTokenIsValidAfterARotationChange redeems a token under one rule, then
// under another.
func TestNewestTokenIsValidAfterARotationChange(t *testing.T) {
	g := newRig(t, func(k *Knobs) { k.Rotation = RotateNever })
	token := g.login("scope", "api").text("refresh_token")
	g.wantRefreshed(token)
	g.as.Set(func(k *Knobs) { k.Rotation = RotateStrict })
	g.wantRefreshed(token)
	g.wantError(g.refresh(token), 400, "invalid_grant")
}

func TestGraceRepeatsTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, func(k *Knobs) { k.Rotation, k.Grace, k.ReuseRevokes = RotateGrace, 3*time.Second, false })
		token := g.login("scope", "api").text("refresh_token")
		first := g.wantRefreshed(token)
		time.Sleep(3 * time.Second)
		if again := g.wantRefreshed(token); again.body != first.body {
			t.Errorf("within the grace period: got %s, want %s", again.body, first.body)
		}
		time.Sleep(time.Second)
		g.wantError(g.refresh(token), 400, "invalid_grant")
		if st := g.as.Stats(); st.Reuses != 1 || len(st.RedeemedTwice) != 0 {
			t.Errorf("got stats %+v, want one reuse and no second redemption", st)
		}
	})
}

func TestRollingExtendsRefreshTokens(t *testing.T) {
	for _, mode := range []Rotation{RotateStrict, RotateNever} {
		for _, rolling := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, func(k *Knobs) {
					k.Rotation, k.RefreshTokenLifetime, k.RefreshTokenRolling = mode, 10*time.Second, rolling
				})
				token := g.login("scope", "api").text("refresh_token")
				time.Sleep(6 * time.Second)
				if next := g.wantRefreshed(token).text("refresh_token"); next != "" {
					token = next
				}
				time.Sleep(6 * time.Second)
				if r := g.refresh(token); (r.status == 200) != rolling {
					t.Errorf("%s, rolling %t: refresh after 12 s: got status %d, want success: %t", mode, rolling, r.status, rolling)
				}
				time.Sleep(10 * time.Second)
				g.wantError(g.refresh(token), 400, "invalid_grant")
			})
		}
	}
}

func TestRefreshPolicySelectsLogins(t *testing.T) {
	tests := []struct {
		name  string
		knob  func(*Knobs)
		scope string
		extra []string
		want  bool
	}{
		{"always", func(k *Knobs) {}, "api", nil, true},
		{"none", func(k *Knobs) { k.RefreshTokens = RefreshNone }, "api offline_access", nil, false},
		{"offline without the scope", func(k *Knobs) { k.RefreshTokens = RefreshOffline }, "api", nil, false},
		{"offline with the scope", func(k *Knobs) { k.RefreshTokens = RefreshOffline }, "api offline_access", nil, true},
		{"parameter missing", func(k *Knobs) { k.RefreshTokenNeeds = map[string]string{"access_type": "offline"} }, "api", nil, false},
		{"parameter present", func(k *Knobs) { k.RefreshTokenNeeds = map[string]string{"access_type": "offline"} }, "api", []string{"access_type", "offline"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, tt.knob)
			r := g.login(append([]string{"scope", tt.scope}, tt.extra...)...)
			if _, got := r.json["refresh_token"]; got != tt.want {
				t.Errorf("got refresh_token in the answer: %t, want %t", got, tt.want)
			}
		})
	}
}

func TestAccessTokenHasTheSetLifetimeAndForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, func(k *Knobs) { k.AccessTokenLifetime = 5 * time.Second })
		r := g.login("scope", "api")
		if r.json["expires_in"] != 5.0 {
			t.Errorf("got expires_in %v, want 5", r.json["expires_in"])
		}
		time.Sleep(5*time.Second - time.Nanosecond)
		if !g.valid(r.text("access_token")) {
			t.Error("the access token is invalid within its lifetime")
		}
		time.Sleep(time.Nanosecond)
		if g.valid(r.text("access_token")) {
			t.Error("the access token is valid beyond its lifetime")
		}
	})
	for _, form := range []TokenFormat{FormatOpaque, FormatJWT} {
		for _, size := range []int{0, 1 << 10, 40 << 10} {
			g := newRig(t, func(k *Knobs) { k.AccessTokenFormat, k.AccessTokenSize = form, size })
			if token := g.login("scope", "api").text("access_token"); len(token) < size || len(token) > size+1500 || !g.valid(token) {
				t.Errorf("%s, size %d: got %d bytes, valid: %t", form, size, len(token), g.valid(token))
			}
		}
	}
}

func TestRefreshParametersFollowTheRules(t *testing.T) {
	tests := []struct {
		name   string
		knob   func(*Knobs)
		params []string
		status int
		want   string
	}{
		{"narrower scope", func(*Knobs) {}, []string{"scope", "api"}, 200, ""},
		{"wider scope", func(*Knobs) {}, []string{"scope", "api admin"}, 400, "invalid_scope"},
		{"scope required", func(k *Knobs) { k.RefreshScope = Required }, nil, 400, "invalid_request"},
		{"scope sent", func(k *Knobs) { k.RefreshScope = Required }, []string{"scope", "api"}, 200, ""},
		{"scope forbidden", func(k *Knobs) { k.RefreshScope = Forbidden }, []string{"scope", "api"}, 400, "invalid_request"},
		{"audience forbidden", func(k *Knobs) { k.RefreshAudience = Forbidden }, []string{"audience", "x"}, 400, "invalid_request"},
		{"audience required", func(k *Knobs) { k.RefreshAudience = Required }, nil, 400, "invalid_request"},
		{"dead token of Dex", func(k *Knobs) { k.DeadTokenError = "invalid_request" }, []string{"refresh_token", "RT_0"}, 400, "invalid_request"},
		{"dead token of Glewlwyd", func(k *Knobs) { k.DeadTokenError = "-" }, []string{"refresh_token", "RT_0"}, 400, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, tt.knob)
			token := g.login("scope", "api read").text("refresh_token")
			r := g.refresh(token, tt.params...)
			g.wantError(r, tt.status, tt.want)
			if tt.name == "dead token of Glewlwyd" && r.body != "" {
				t.Errorf("got body %q, want none", r.body)
			}
			if tt.status == 200 && len(tt.params) == 2 && r.text("scope") != tt.params[1] {
				t.Errorf("got scope %q, want %q", r.text("scope"), tt.params[1])
			}
			if tt.status != 200 {
				g.as.Set(func(k *Knobs) { *k = DefaultKnobs() })
				g.wantRefreshed(token) // a refused request spends nothing
			}
		})
	}
}

func TestKnobsRevokeOlderTokens(t *testing.T) {
	g := newRig(t, func(k *Knobs) { k.RefreshKillsAccessToken, k.OneFamilyPerUser = true, true })
	first := g.login("scope", "api")
	second := g.wantRefreshed(first.text("refresh_token"))
	if g.valid(first.text("access_token")) || !g.valid(second.text("access_token")) {
		t.Errorf("after a refresh: got valid %t and %t, want false for the old access token and true for the new one",
			g.valid(first.text("access_token")), g.valid(second.text("access_token")))
	}
	g.login("scope", "api", "login_hint", "bob")
	third := g.wantRefreshed(second.text("refresh_token")) // another user's login revokes nothing
	g.login("scope", "api")
	g.wantError(g.refresh(third.text("refresh_token")), 400, "invalid_grant")
}

func TestDisabledUserCannotRefresh(t *testing.T) {
	g := newRig(t)
	r := g.login("scope", "api")
	g.as.SetUser(User{Name: DefaultUser, Disabled: true})
	g.wantError(g.refresh(r.text("refresh_token")), 400, "invalid_grant")
	g.as.SetUser(User{Name: DefaultUser})
	g.wantRefreshed(r.text("refresh_token"))
}

func TestLatencySurroundsTheCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		r := g.login("scope", "api")
		g.as.Set(func(k *Knobs) { k.LatencyBefore, k.LatencyAfter = time.Second, 2*time.Second })
		start := time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { g.refresh(r.text("refresh_token")) })
		}
		time.Sleep(time.Second - time.Nanosecond)
		synctest.Wait()
		if n := len(g.as.Stats().Redeemed); n != 0 {
			t.Errorf("before the end of LatencyBefore: got %d redeemed tokens, want none", n)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if n := len(g.as.Stats().Redeemed); n != 1 {
			t.Errorf("after LatencyBefore: got %d redeemed tokens, want 1", n)
		}
		wg.Wait()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("the requests took %v, want 3s", took)
		}
		st := g.as.Stats()
		if st.MaxConcurrentRefreshes() != 3 || st.Reuses != 2 || st.Grants[GrantRefresh] != 3 || st.Granted[GrantRefresh] != 1 {
			t.Errorf("got stats %+v, want three concurrent requests, one granted", st)
		}
	})
}

func TestSequentialRefreshesAreNotConcurrent(t *testing.T) {
	g := newSocketRig(t)
	token := g.login("scope", "api").text("refresh_token")
	for range 200 {
		token = g.wantRefreshed(token).text("refresh_token")
	}
	if n := g.as.Stats().MaxConcurrentRefreshes(); n != 1 {
		t.Errorf("got MaxConcurrentRefreshes %d, want 1", n)
	}
}
