package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// lockTimeout is how long Open waits for another process to close the file.
const lockTimeout = 5 * time.Second

// opener is the type of bbolt's option OpenFile.
type opener func(name string, flag int, mode fs.FileMode) (*os.File, error)

// openFile opens the file and creates the missing buckets.
func openFile(path string, open opener) (db *bbolt.DB, err error) {
	if err := makePrivateDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := checkDamage(path); err != nil {
		return nil, err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recoverOpening(&err)
	open, stop := withReadAhead(open)
	defer stop()
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:  lockTimeout,
		OpenFile: open,
		// Writing the list of free pages with every transaction would halve the writes
		// per second. closeFile writes it once.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		// All readers would share the lock of the statistics.
		NoStatistics: true,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, err
	}
	if err := prepareFormat(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// closeFile writes the list of free pages, waits for running transactions and closes
// the file. Without the list, the next Open would read the whole file, as it does
// after a crash.
func closeFile(db *bbolt.DB) error {
	db.NoFreelistSync = false
	// If this fails, for example on a full disk, the next Open is slower and nothing
	// is lost.
	_ = db.Update(func(*bbolt.Tx) error { return nil })
	if err := db.Close(); err != nil {
		return fmt.Errorf("closing session store: %w", err)
	}
	return nil
}

// prepareFormat creates the missing buckets: all in an empty file, those of tags and
// labels in a file of an earlier release. It writes nothing to a complete file.
func prepareFormat(db *bbolt.DB) error {
	var empty, complete bool
	err := db.View(func(tx *bbolt.Tx) (err error) {
		empty, err = checkFormat(tx)
		complete = tx.Bucket(taggedBucket) != nil && tx.Bucket(tagsBucket) != nil && tx.Bucket(labelsBucket) != nil
		return err
	})
	if err != nil || complete {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{itemsBucket, indexBucket, metaBucket, taggedBucket, tagsBucket, labelsBucket} {
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

// checkFormat reports whether the file is empty. It returns an error if the file is
// neither empty nor a session store of this format.
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
		return false, fmt.Errorf("%w: it names no format version", ErrDamaged)
	}
	if v := binary.BigEndian.Uint64(format); v != formatVersion {
		return false, fmt.Errorf("it has format version %d, made by another release; this one reads version %d only", v, formatVersion)
	}
	return false, nil
}

// makePrivateDir creates the directory if it is missing. It refuses a directory that
// others can write, because they could replace the file.
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

// openPrivate checks the opened file and not the path, so that no other file can take
// its place between the check and the opening.
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
	if runtime.GOOS == "windows" { // has no permission bits
		return nil
	}
	if perm := info.Mode().Perm(); perm&othersWrite != 0 {
		return fmt.Errorf("can be written by group or others (mode %04o); make it private with chmod go-w", perm)
	}
	return nil
}

// recoverDamage converts a panic of bbolt into an error. bbolt panics on a damaged
// page, and the other sites of this process must not end with it.
func recoverDamage(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("session store is damaged: %v", r)
	}
}
