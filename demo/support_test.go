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

// patience bounds each wait, so that a broken demo cannot hang a test.
const patience = 5 * time.Minute

// leash is a named pipe that the programs under test hold open for writing. A reader gets EOF when all of them have ended,
// including the children of children, whose process IDs the test does not know.
type leash struct{ path string }

func newLeash(t *testing.T) leash {
	t.Helper()
	l := leash{filepath.Join(t.TempDir(), "leash")}
	if err := syscall.Mkfifo(l.path, 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

// awaitStart waits until a holder has written a line.
func (l leash) awaitStart(t *testing.T) {
	t.Helper()
	f := l.open(t, os.O_RDWR) // does not block without a writer
	defer f.Close()
	if line, err := bufio.NewReader(f).ReadString('\n'); err != nil {
		t.Fatalf("waiting for the program's start: got %q and error %v", line, err)
	}
}

// awaitEnd fails the test unless all holders end.
func (l leash) awaitEnd(t *testing.T) {
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
	if err := f.SetDeadline(time.Now().Add(patience)); err != nil {
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

// fakeCaddy returns a script in place of Caddy. `adapt` prints a configuration, `run` runs the given commands.
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

// emptyTempDir returns an empty directory and makes it the demo's TMPDIR.
func emptyTempDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

// wantEmpty fails the test if the demo has left files in the directory.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil || len(files) > 0 {
		t.Errorf("after the demo: got files %v and error %v, want no files", files, err)
	}
}
