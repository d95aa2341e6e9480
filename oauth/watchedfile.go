package oauth

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"
)

// fileSettle is how long a file must not have changed before its new content is
// used. Until then another program may still be writing it, and the first part of a
// file can be valid, too.
const fileSettle = time.Second

// watchedFile holds the last usable content of a file with credentials. It looks at
// the file for each use, and reads it again if it has changed. A new content that
// cannot be used does not replace the former one. It is safe for concurrent use.
type watchedFile[T any] struct {
	option string // for errors
	path   string
	limit  int64 // in bytes
	parse  func(content []byte) (T, error)

	mu     sync.Mutex
	seen   fs.FileInfo // of the content that was read last; nil: read again
	value  T           // of the last usable content
	loaded bool        // value is set
	err    error       // why the file cannot be used now
}

// current returns the value of the last usable content, and whether there is one.
// The error says why the file cannot be used now. It names the option and the file,
// and never contains a part of the content.
func (f *watchedFile[T]) current() (value T, loaded bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.reload(time.Now()); err != nil {
		f.err = fmt.Errorf("%s %s: %w", f.option, f.path, err)
	}
	return f.value, f.loaded, f.err
}

// reload reads the file if it has changed. It returns a new error, and nil if
// nothing has changed. The caller holds the lock.
func (f *watchedFile[T]) reload(now time.Time) error {
	info, err := os.Stat(f.path)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is not a regular file")
	}
	if err != nil {
		f.seen = nil
		return reason(err)
	}
	age := now.Sub(info.ModTime())
	changing := age >= 0 && age < fileSettle // a time in the future says nothing
	if f.seen != nil && sameContent(f.seen, info) || f.loaded && changing {
		return nil
	}
	if f.seen = info; changing {
		f.seen = nil
	}
	content, after, err := f.read()
	if err != nil {
		f.seen = nil
		return reason(err)
	}
	if !sameContent(info, after) {
		f.seen = nil
		if f.loaded {
			return nil
		}
	}
	value, err := f.parse(content)
	if err != nil {
		return err
	}
	f.value, f.loaded, f.err = value, true, nil
	return nil
}

// read returns the content, and the state of the file after the reading.
func (f *watchedFile[T]) read() ([]byte, fs.FileInfo, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, f.limit+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(content)) > f.limit {
		return nil, nil, fmt.Errorf("is larger than %d bytes", f.limit)
	}
	after, err := file.Stat()
	return content, after, err
}

// sameContent reports whether a file has not been written or replaced.
func sameContent(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// reason removes the path from an error of package os: the caller writes it.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
