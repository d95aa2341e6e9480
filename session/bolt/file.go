package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockTimeout is how long Open waits for another process to close the file.
const lockTimeout = 5 * time.Second

// opener opens the file for bbolt.
type opener func(name string, flag int, mode fs.FileMode) (*os.File, error)

// openFile opens the file and brings it into our format.
func openFile(path string, open opener) (db *bbolt.DB, err error) {
	if err := makePrivateDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	defer recoverDamage(&err)
	open, stop := ahead(open)
	defer stop()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:  lockTimeout,
		OpenFile: open,
		// Twice the writes per second. closeFile makes up for the scan at Open.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		// Their lock is shared by all readers.
		NoStatistics: true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, errors.New("another process has it open, and only one can")
	}
	if err != nil {
		return nil, err
	}
	if err := prepareFormat(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// closeFile saves the list of free pages and closes the file once no
// transaction is running. Without the list the next Open would read the whole
// file, as it has to after a crash.
func closeFile(db *bbolt.DB) error {
	db.NoFreelistSync = false
	// If this fails, on a full disk for example, the next Open is slower and
	// nothing is lost.
	_ = db.Update(func(*bbolt.Tx) error { return nil })
	if err := db.Close(); err != nil {
		return fmt.Errorf("closing session store: %w", err)
	}
	return nil
}

// prepareFormat fills an empty file, and adds what one of the first release
// lacks. It writes nothing to a file that is complete.
func prepareFormat(db *bbolt.DB) error {
	var empty, complete bool
	err := db.View(func(tx *bbolt.Tx) (err error) {
		empty, err = checkFormat(tx)
		complete = tx.Bucket(taggedBucket) != nil && tx.Bucket(tagsBucket) != nil
		return err
	})
	if err != nil || complete {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{itemsBucket, indexBucket, metaBucket, taggedBucket, tagsBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return fmt.Errorf("creating bucket: %w", err)
			}
		}
		if !empty {
			return nil
		}
		return tx.Bucket(metaBucket).Put(formatKey, binary.BigEndian.AppendUint64(nil, formatVersion))
	})
}

// checkFormat reports whether the file holds nothing at all yet. It returns an
// error if it holds something that is not ours.
func checkFormat(tx *bbolt.Tx) (empty bool, err error) {
	if first, _ := tx.Cursor().First(); first == nil {
		return true, nil
	}
	for _, name := range [][]byte{itemsBucket, indexBucket, metaBucket} {
		if tx.Bucket(name) == nil {
			return false, errors.New("it is a bbolt file, but no session store")
		}
	}
	format := tx.Bucket(metaBucket).Get(formatKey)
	if len(format) != 8 {
		return false, errors.New("it names no format version")
	}
	if v := binary.BigEndian.Uint64(format); v != formatVersion {
		return false, fmt.Errorf("it has format version %d, made by another release; this one reads version %d only", v, formatVersion)
	}
	return false, nil
}

// makePrivateDir creates the directory if it is missing. One that others can
// write would let them replace the file.
func makePrivateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("creating directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("checking directory: %w", err)
	}
	if err := checkMode(info); err != nil {
		return fmt.Errorf("its directory %s %w", dir, err)
	}
	return nil
}

// openPrivate looks at the file it opened, not at the path: no other file can
// slip in between.
func openPrivate(name string, flag int, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err == nil {
		if modeErr := checkMode(info); modeErr != nil {
			err = fmt.Errorf("the file %w", modeErr)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func checkMode(info fs.FileInfo) error {
	const othersWrite = 0o022
	if runtime.GOOS == "windows" { // the mode says nothing there
		return nil
	}
	if perm := info.Mode().Perm(); perm&othersWrite != 0 {
		return fmt.Errorf("can be written by group or others (mode %04o); make it private with chmod go-w", perm)
	}
	return nil
}

// recoverDamage turns a panic of bbolt, its answer to a damaged page, into an
// error: other sites of the server live in this process too.
func recoverDamage(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("session store is damaged: %v", r)
	}
}
