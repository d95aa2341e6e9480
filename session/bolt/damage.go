package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrDamaged means that the file cannot be read as a session store any more: it was cut
// off or overwritten. A file that is locked or private to another user, a bbolt file of
// another program, and a store of another release are not damaged.
var ErrDamaged = errors.New("the file is damaged")

// ErrInUse means that another process has the file open.
var ErrInUse = errors.New("another process has it open, and only one can")

// Check returns ErrDamaged if the file is damaged, ErrInUse if another process has it
// open, and nil for a missing file. It changes nothing.
func Check(path string) error {
	if err := checkDamage(path); err != nil {
		return fmt.Errorf("session store %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("session store: %w", err)
	}
	return f.Close()
}

// SetAside renames a damaged file, so that a new one can take its place, and returns its
// new path. It replaces no file. It refuses a file that others may read, because a Store
// makes only private ones: the file is probably none of a Store.
func SetAside(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("moving damaged session store: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("the file is not moved aside, because others may read it (mode %04o) and a session store is private: "+
			"if it is no session store, correct the path; otherwise move it", info.Mode().Perm())
	}
	to := path + ".damaged-" + time.Now().UTC().Format("20060102T150405.000000000Z")
	if _, err := os.Lstat(to); err == nil {
		return "", fmt.Errorf("moving damaged session store: %s exists", to)
	}
	if err := os.Rename(path, to); err != nil {
		return "", fmt.Errorf("moving damaged session store: %w", err)
	}
	return to, nil
}

// checkDamage returns ErrDamaged if bbolt would end the process at this file: it reads
// mapped memory, in which a missing page is a fault, and it panics in goroutines of its
// own. For the time of the check, other processes cannot write the file.
//
// After a crash, checkDamage reads all pages of the tree, as bbolt does then to find the
// free ones. Otherwise it reads only the head of the file.
func checkDamage(path string) (err error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && (info.Size() == 0 || !info.Mode().IsRegular()) {
		return nil
	}
	if err != nil {
		return err
	}
	// What is wrong with the rights of the file is no damage.
	f, err := openPrivate(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recoverOpening(&err)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout, OpenFile: openPrivate})
	if err != nil {
		return openingError(err, info.Size())
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("%w: it has %d bytes of %d", ErrDamaged, info.Size(), tx.Size())
		}
		if saved, err := freePagesSaved(path, db.Info().PageSize); err != nil || saved {
			return err
		}
		return readAll(tx)
	})
}

// openingError tells a damaged file from one that cannot be opened now.
func openingError(err error, size int64) error {
	const smallest = 2 * 4096 // bytes of the two meta pages
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return ErrInUse
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), size < smallest:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// freePagesSaved reports whether the newer meta page names a list of free pages, which
// closeFile has written. The layout of meta pages is part of bbolt's file format.
func freePagesSaved(path string, pageSize int) (bool, error) {
	const pageHeader, freelist, txid, metaSize = 16, 32, 48, 64
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	var newest uint64
	var saved bool
	for page := range 2 {
		var meta [metaSize]byte
		if _, err := f.ReadAt(meta[:], int64(page*pageSize+pageHeader)); err != nil {
			return false, err
		}
		if id := binary.NativeEndian.Uint64(meta[txid:]); id >= newest {
			newest, saved = id, binary.NativeEndian.Uint64(meta[freelist:]) != math.MaxUint64
		}
	}
	return saved, nil
}

// readAll reads all keys. It panics at a page that is none.
func readAll(tx *bbolt.Tx) error {
	return tx.ForEach(func(_ []byte, bucket *bbolt.Bucket) error {
		return readBucket(bucket)
	})
}

func readBucket(bucket *bbolt.Bucket) error {
	return bucket.ForEach(func(key, value []byte) error {
		if value == nil {
			return readBucket(bucket.Bucket(key))
		}
		return nil
	})
}

// recoverOpening converts a panic of bbolt, or a fault in mapped memory, into ErrDamaged.
func recoverOpening(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %v", ErrDamaged, r)
	}
}
