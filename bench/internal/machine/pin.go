package machine

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// CPUs returns the CPUs that this process may use.
func CPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("asking for the CPUs of this process: %w", err)
	}
	var cpus []int
	for cpu := 0; len(cpus) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

// Niceness of processes under measurement, which wait for few others, and of
// all the rest.
const (
	Favoured = -5
	Normal   = 0
)

// Pin binds a process with all its threads, and those to come, to CPUs, and sets
// its niceness, if it may.
func Pin(pid, niceness int, cpus ...int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	dir := fmt.Sprintf("/proc/%d/task", pid)
	// A thread inherits from the one that makes it, so what was made while the
	// list was read is free still. There is none left when a list brings no news.
	for bound := map[string]bool{}; ; {
		threads, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("binding process %d to a CPU: %w", pid, err)
		}
		news := false
		for _, thread := range threads {
			if bound[thread.Name()] {
				continue
			}
			news = true
			bound[thread.Name()] = true
			tid, err := strconv.Atoi(thread.Name())
			if err == nil {
				err = unix.SchedSetaffinity(tid, &set)
			}
			if err == nil {
				// Without the right to, the measurement is merely less steady.
				_ = unix.Setpriority(unix.PRIO_PROCESS, tid, niceness)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
				return fmt.Errorf("binding process %d to a CPU: %w", pid, err)
			}
		}
		if !news {
			return nil
		}
	}
}
