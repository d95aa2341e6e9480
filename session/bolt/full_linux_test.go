package bolt

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// TestFullDiskFailsWritesAndServesReads runs in a process of its own, in which a limit
// of the file size simulates the full disk.
func TestFullDiskFailsWritesAndServesReads(t *testing.T) {
	const env = "BOLT_TEST_DISK_FULL"
	if os.Getenv(env) == "" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		child := exec.CommandContext(t.Context(), exe, "-test.run=^TestFullDiskFailsWritesAndServesReads$")
		child.Env = append(os.Environ(), env+"=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}

	path := newPath(t)
	s := open(t, path)
	mustCreate(t, s, session.ID{1}, newItem(1, time.Hour))

	limit := limitFileSize(t, 256<<10)
	kept, err := fillUp(t, s)
	if errors.Is(err, session.ErrConflict) {
		t.Errorf("Create on a full disk: got error %q, want that of the disk", err)
	}
	for range 3 {
		large := newItem(2, time.Hour)
		large.Value = make([]byte, 1<<20)
		if err := s.Replace(t.Context(), session.ID{1}, large); err == nil || errors.Is(err, session.ErrConflict) {
			t.Errorf("Replace on a full disk: got error %v, want that of the disk", err)
		}
		for _, id := range append(kept, session.ID{1}) {
			if err := view(t, s, id); err != nil {
				t.Fatalf("View on a full disk: got error %q, want the item", err)
			}
		}
	}

	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	mustReplace(t, s, session.ID{1}, newItem(2, time.Hour))
	mustCreate(t, s, session.ID{2}, newItem(1, time.Hour))
	checkFile(t, s)
}

func limitFileSize(t *testing.T, size uint64) (limit syscall.Rlimit) {
	t.Helper()
	err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit)
	if err == nil {
		limit.Cur = size
		err = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
	}
	if err != nil {
		t.Fatal(err)
	}
	return limit
}

// fillUp creates items until Create fails, and returns those created before.
func fillUp(t *testing.T, s *Store) (kept []session.ID, err error) {
	t.Helper()
	for n := range uint16(1000) {
		var id session.ID
		binary.BigEndian.PutUint16(id[30:], n)
		item := newItem(1, time.Hour)
		item.Value = make([]byte, 3000)
		if err := s.Create(t.Context(), id, item); err != nil {
			return kept, err
		}
		kept = append(kept, id)
	}
	t.Fatal("3 MB fit on a disk of 256 KiB")
	return nil, nil
}
