//go:build !unix || solaris || illumos || aix

package store

import "os"

// lock only opens the file: there is no flock here, and two gateways must not be given one directory.
func lock(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
}
