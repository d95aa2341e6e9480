package redisserver

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDoDecodesReplies(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	binary := "any\r\nbytes\x00\xff"
	for _, tc := range []struct {
		command []string
		want    any
	}{
		{[]string{"SET", "a:1", binary}, "OK"},
		{[]string{"GET", "a:1"}, binary},
		{[]string{"GET", "none"}, nil},
		{[]string{"RPUSH", "list", "x", ""}, int64(2)},
		{[]string{"LRANGE", "list", "0", "-1"}, []any{"x", ""}},
		{[]string{"EVAL", "return {1, {'two'}, false}", "0"}, []any{int64(1), []any{"two"}, nil}},
	} {
		if got := s.Do(t, tc.command...); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%q: got %q, want %q", tc.command, got, tc.want)
		}
	}
	keys := s.Keys(t, "*")
	slices.Sort(keys)
	if !slices.Equal(keys, []string{"a:1", "list"}) {
		t.Errorf("got keys %q, want a:1 and list", keys)
	}
	if _, err := do(t.Context(), s.Addr, "GET", "list"); err == nil || !strings.HasPrefix(err.Error(), "WRONGTYPE") {
		t.Errorf("an error reply: got error %v, want WRONGTYPE", err)
	}
}

func TestAppendOnlyKeepsDataOverKill(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		opts Options
		kept any
	}{
		{"in memory", Options{}, nil},
		{"on disk", Options{AppendOnly: true}, "value"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := Start(t, tc.opts)
			s.Do(t, "SET", "key", "value")
			s.Kill(t)
			if _, err := do(t.Context(), s.Addr, "PING"); err == nil {
				t.Error("after Kill: got an answer, want an error")
			}
			s.Restart(t)
			if got := s.Do(t, "GET", "key"); got != tc.kept {
				t.Errorf("after Kill and Restart: got %v, want %v", got, tc.kept)
			}
			s.Stop(t)
			s.Restart(t)
			if got := s.Do(t, "GET", "key"); got != tc.kept {
				t.Errorf("after Stop and Restart: got %v, want %v", got, tc.kept)
			}
		})
	}
}

func TestPausedServerDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{})
	s.Pause(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if reply, err := do(ctx, s.Addr, "PING"); err == nil {
		t.Errorf("after Pause: got reply %v, want a timeout", reply)
	}
	s.Resume(t)
	if got := s.Do(t, "PING"); got != "PONG" {
		t.Errorf("after Resume: got %v, want PONG", got)
	}
}
