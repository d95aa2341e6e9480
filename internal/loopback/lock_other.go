//go:build !unix

package loopback

import "os"

// lock does nothing. Without flock, FreePort checks for a listener but cannot reserve a port across processes.
func lock(*os.File) error { return nil }
