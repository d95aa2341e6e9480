//go:build !unix

package loopback

import "os"

// lock does nothing: where there is no flock, a port is only checked.
func lock(*os.File) error { return nil }
