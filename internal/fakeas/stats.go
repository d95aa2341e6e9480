package fakeas

import (
	"maps"
	"slices"
)

// Stats counts the server's requests and their results. A request is in the
// counts before its answer is sent.
type Stats struct {
	Requests map[Endpoint]int `json:"requests"`
	// Grants counts token requests by grant_type. Granted counts the ones that
	// issued tokens, even if the answer was lost. Refused counts the others, by
	// error code.
	Grants  map[string]int `json:"grants"`
	Granted map[string]int `json:"granted"`
	Refused map[string]int `json:"refused"`
	// Presented counts the requests with each refresh token, Redeemed its
	// successful redemptions.
	Presented map[string]int `json:"presented"`
	Redeemed  map[string]int `json:"redeemed"`
	// RedeemedTwice lists the refresh tokens with more than one redemption.
	RedeemedTwice []string `json:"redeemed_twice"`
	// Reuses counts refused requests with a spent refresh token, CodeReuses
	// those with a spent code.
	Reuses     int `json:"reuses"`
	CodeReuses int `json:"code_reuses"`
	// ConcurrentRefreshes is the maximum number of simultaneous refresh requests
	// of each family.
	ConcurrentRefreshes map[string]int `json:"concurrent_refreshes"`
}

func newStats() Stats {
	return Stats{
		Requests: map[Endpoint]int{}, Grants: map[string]int{}, Granted: map[string]int{}, Refused: map[string]int{},
		Presented: map[string]int{}, Redeemed: map[string]int{}, ConcurrentRefreshes: map[string]int{},
	}
}

// MaxConcurrentRefreshes is the highest of ConcurrentRefreshes.
func (s Stats) MaxConcurrentRefreshes() int {
	most := 0
	for _, n := range s.ConcurrentRefreshes {
		most = max(most, n)
	}
	return most
}

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.ledger.counts
	st.Requests = maps.Clone(st.Requests)
	st.Grants = maps.Clone(st.Grants)
	st.Granted = maps.Clone(st.Granted)
	st.Refused = maps.Clone(st.Refused)
	st.Presented = maps.Clone(st.Presented)
	st.Redeemed = map[string]int{}
	st.ConcurrentRefreshes = map[string]int{}
	for _, t := range s.ledger.order {
		if t.Kind != KindRefresh || t.Redeemed == 0 {
			continue
		}
		st.Redeemed[t.Value] = t.Redeemed
		if t.Redeemed > 1 {
			st.RedeemedTwice = append(st.RedeemedTwice, t.Value)
		}
	}
	for id, f := range s.ledger.families {
		if f.peak > 0 {
			st.ConcurrentRefreshes[id] = f.peak
		}
	}
	slices.Sort(st.RedeemedTwice)
	return st
}

// countRequest counts a request and returns the function that records its
// answer.
func (s *Server) countRequest(c *call) (recordAnswer func(answer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := &s.ledger.counts
	counts.Requests[c.entry.Endpoint]++
	var refreshing *family
	if c.entry.Endpoint == EndpointToken {
		grant := c.r.PostForm.Get("grant_type")
		counts.Grants[grant]++
		if token := c.r.PostForm.Get("refresh_token"); grant == GrantRefresh && token != "" {
			counts.Presented[token]++
			if t := s.ledger.find(KindRefresh, token); t != nil {
				t.Presented++
				refreshing = t.family
				refreshing.running++
				refreshing.peak = max(refreshing.peak, refreshing.running)
			}
		}
		if v := c.r.PostForm.Get("code_verifier"); v != "" {
			s.ledger.verifiers = append(s.ledger.verifiers, v)
		}
	}
	return func(a answer) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if refreshing != nil {
			refreshing.running--
		}
		if c.entry.Endpoint == EndpointToken && a.code != "" {
			counts.Refused[a.code]++
		}
		c.entry.Status, c.entry.Error, c.entry.Reason = a.status, a.code, a.reason
		s.log.add(*c.entry)
	}
}
