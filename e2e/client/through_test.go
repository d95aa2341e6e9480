package client

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestThroughBalancesRequestsForTheHost(t *testing.T) {
	var addrs []string
	for i := range 3 {
		address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/begin" {
				http.SetCookie(w, &http.Cookie{Name: "seen", Value: "yes", Path: "/"})
				http.Redirect(w, r, "http://site.localhost:80/end", http.StatusFound)
				return
			}
			fmt.Fprint(w, i, r.Host, r.Header["Cookie"])
		})
		addrs = append(addrs, strings.TrimPrefix(address, "http://"))
	}
	c := New("", "")
	turn := 0
	shared := &http.Transport{}
	t.Cleanup(shared.CloseIdleConnections)
	c.Through(shared, "site.localhost:80", func() string {
		turn++
		return addrs[turn%3]
	})
	page, err := c.Visit(t.Context(), "http://site.localhost:80/begin")
	if err != nil {
		t.Fatal(err)
	}
	// A request for another host goes there directly.
	direct, err := c.Visit(t.Context(), "http://"+addrs[0]+"/")
	if err != nil {
		t.Fatal(err)
	}
	got := []string{page.URL.Host, string(page.Body), string(direct.Body)}
	want := []string{"site.localhost:80", "2site.localhost:80[seen=yes]", "0" + addrs[0] + "[]"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
