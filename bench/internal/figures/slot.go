// Package figures makes of what was measured what is reported: ratios with their
// spread, whether the machine was quiet enough to believe them, a table and a
// plot.
package figures

import (
	"fmt"
	"time"
)

const (
	// RepeatAbove is the share of a CPU in other hands above which a slot is
	// measured again.
	RepeatAbove = 0.10
	// LeaveOutAbove is the share above which a slot does not count.
	LeaveOutAbove = 0.15
)

// A Cell is one kind of load.
type Cell struct {
	Sessions    int
	HTTP2       bool
	Size        int // of an answer in bytes
	Concurrency int
}

// String is the heading of the cell.
func (c Cell) String() string {
	protocol, sessions := "HTTP/1.1", "1 session"
	if c.HTTP2 {
		protocol = "HTTP/2"
	}
	if c.Sessions != 1 {
		sessions = thousands(c.Sessions) + " sessions"
	}
	return fmt.Sprintf("%s, %s B, %d at a time, %s", protocol, thousands(c.Size), c.Concurrency, sessions)
}

// thousands groups digits.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// A Slot is one measurement of one subject.
type Slot struct {
	Cell    Cell
	Subject string
	Round   int

	Requests int           // recorded
	Elapsed  time.Duration // of the recording
	CPU      time.Duration // of the subject's process meanwhile
	RedisCPU time.Duration // of Redis
	P50      time.Duration
	P99      time.Duration

	Allocations    float64 // for each request
	AllocatedBytes float64 // for each request

	Refreshes int // of tokens meanwhile

	Strangers float64 // largest share of a CPU in other hands
	Tries     int     // it took until that was low enough, or the tries were used up
}

// Quiet reports whether the slot counts.
func (s Slot) Quiet() bool { return s.Strangers <= LeaveOutAbove }

// Throughput is in requests a second.
func (s Slot) Throughput() float64 { return float64(s.Requests) / s.Elapsed.Seconds() }

// CPUPerRequest is in microseconds.
func (s Slot) CPUPerRequest() float64 { return micros(s.CPU) / float64(s.Requests) }

// RedisCPUPerRequest is in microseconds.
func (s Slot) RedisCPUPerRequest() float64 { return micros(s.RedisCPU) / float64(s.Requests) }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
