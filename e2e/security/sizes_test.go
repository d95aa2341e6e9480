package security

import (
	"os"
	"strconv"
	"testing"
)

// amount returns normal, or full with SECURITY_LONG=1.
func amount[T any](few, all T) T {
	if os.Getenv("SECURITY_LONG") == "1" {
		return all
	}
	return few
}

// floodSize returns the number of requests of a flood: normal, or the number in
// SECURITY_FLOOD.
func floodSize(t *testing.T, few int) int {
	text := os.Getenv("SECURITY_FLOOD")
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("SECURITY_FLOOD: %v", err)
	}
	return n
}
