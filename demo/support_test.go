package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watchLimit is only there so that a broken demo cannot hang a test.
const watchLimit = 5 * time.Minute

// leash is a named pipe that programs under test hold open for writing. It shows whether any of them still runs, without
// process ids, which say little about the children of children.
type leash struct{ path string }

func newLeash(t *testing.T) leash {
	t.Helper()
	l := leash{filepath.Join(t.TempDir(), "leash")}
	if err := syscall.Mkfifo(l.path, 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

// awaitUp waits until a holder has written a line.
func (l leash) awaitUp(t *testing.T) {
	t.Helper()
	f := l.open(t, os.O_RDWR) // never waits for the other side
	defer f.Close()
	if line, err := bufio.NewReader(f).ReadString('\n'); err != nil {
		t.Fatalf("waiting for the program: %q, %v", line, err)
	}
}

// awaitGone fails the test unless all holders end.
func (l leash) awaitGone(t *testing.T) {
	t.Helper()
	f := l.open(t, os.O_RDONLY)
	defer f.Close()
	if _, err := io.ReadAll(f); err != nil {
		t.Errorf("a child still runs: %v", err)
	}
}

func (l leash) open(t *testing.T, flag int) *os.File {
	t.Helper()
	f, err := os.OpenFile(l.path, flag|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.SetDeadline(time.Now().Add(watchLimit)); err != nil {
		t.Fatal(err)
	}
	return f
}

// script writes a shell script that holds the leash.
func (l leash) script(t *testing.T, path, text string) string {
	t.Helper()
	text = fmt.Sprintf("#!/bin/sh\nexec 3<>'%s'\n%s\n", l.path, text)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// fakeCaddy is a Caddy that adapts as the real one does, and whose `run` is what the script says.
func fakeCaddy(t *testing.T, l leash, run string) string {
	t.Helper()
	return l.script(t, filepath.Join(t.TempDir(), "caddy"), `case $1 in
adapt) echo '`+strings.ReplaceAll(adapted, "'", "")+`' ;;
run)
	`+run+`
	;;
esac`)
}

const adapted = `{"apps":{"http":{"servers":{"srv0":{"listen":[":8080"],"routes":[{"handle":[{"handler":"reverse_proxy",` +
	`"upstreams":[{"dial":"127.0.0.1:8081"}]}]}]}}}}}`

// emptyTempDir makes the demo keep its data below a directory of the test.
func emptyTempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

func mustBeEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("the demo left %v, %v", left, err)
	}
}
