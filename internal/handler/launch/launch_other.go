//go:build !linux

package launch

// Supported says whether programs can be limited here.
const Supported = false
