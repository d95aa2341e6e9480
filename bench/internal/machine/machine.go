// Package machine reads CPU times and memory, and binds processes to CPUs. It works on Linux only.
package machine

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// userHZ is the unit of /proc/stat: a hundredth of a second on every platform that Go supports.
const userHZ = 100

// ProcessCPU returns the CPU time of a process, ended threads included. It reads the kernel's clock
// of the process, because /proc counts in steps of 10 ms.
func ProcessCPU(pid int) (time.Duration, error) {
	// clock_getcpuclockid(3): the complement of the pid above three bits; the bits CPUCLOCK_SCHED (2)
	// ask for nanoseconds.
	const cpuclockSched = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &t); err != nil {
		return 0, fmt.Errorf("reading the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// busyTime returns how long a CPU has not been idle, from /proc/stat (proc_stat(5)). Time taken by the
// hypervisor (steal) counts as busy. With separateIRQ the kernel does not add interrupts to the
// interrupted process; they are left out, since they would look like the work of another process.
func busyTime(stat string, cpu int, separateIRQ bool) (time.Duration, error) {
	ticks, err := fields(stat, fmt.Sprintf("cpu%d ", cpu))
	if err != nil {
		return 0, err
	}
	if len(ticks) < 8 { // user, nice, system, idle, iowait, irq, softirq, steal
		return 0, fmt.Errorf("reading the times of CPU %d: got %d fields, want 8", cpu, len(ticks))
	}
	busy := ticks[0] + ticks[1] + ticks[2] + ticks[7]
	if !separateIRQ {
		busy += ticks[5] + ticks[6]
	}
	return time.Duration(busy) * time.Second / userHZ, nil
}

// separateIRQTime reports whether the kernel has IRQ_TIME_ACCOUNTING, if its configuration is readable.
func separateIRQTime() bool {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return false
	}
	config, err := os.ReadFile("/boot/config-" + strings.TrimSpace(string(release)))
	return err == nil && strings.Contains(string(config), "CONFIG_IRQ_TIME_ACCOUNTING=y")
}

// Others runs f and returns the largest share of one CPU that other processes used during it, from 0 to
// 1. Known lists the processes of the measurement by the CPU to which each is bound.
func Others(known map[int][]int, f func() error) (float64, error) {
	before, err := otherTimes(known)
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := f(); err != nil {
		return 0, err
	}
	elapsed := time.Since(begun)
	after, err := otherTimes(known)
	if err != nil {
		return 0, err
	}
	most := time.Duration(0)
	for cpu := range known {
		most = max(most, after[cpu]-before[cpu])
	}
	return min(float64(most)/float64(elapsed), 1), nil
}

// otherTimes returns for each CPU the busy time since boot, less that of the known processes.
func otherTimes(known map[int][]int) (map[int]time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, fmt.Errorf("reading CPU times: %w", err)
	}
	times := map[int]time.Duration{}
	for cpu, pids := range known {
		if times[cpu], err = busyTime(string(stat), cpu, separateIRQTime()); err != nil {
			return nil, err
		}
		for _, pid := range pids {
			t, err := ProcessCPU(pid)
			if err != nil {
				return nil, err
			}
			times[cpu] -= t
		}
	}
	return times, nil
}

// Memory is the resident memory of a process in bytes.
type Memory struct {
	Anonymous int64 // heap and stacks
	File      int64 // mapped pages of files, which the kernel can reclaim
}

// MemoryOf returns the resident memory of a process.
func MemoryOf(pid int) (Memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Memory{}, fmt.Errorf("reading the memory of process %d: %w", pid, err)
	}
	return parseStatus(string(text))
}

// parseStatus reads /proc/PID/status (proc_pid_status(5)), which counts in kB.
func parseStatus(text string) (Memory, error) {
	anonymous, err := Field(text, "RssAnon:")
	if err != nil {
		return Memory{}, fmt.Errorf("reading the memory of a process: %w", err)
	}
	file, err := Field(text, "RssFile:")
	if err != nil {
		return Memory{}, fmt.Errorf("reading the memory of a process: %w", err)
	}
	return Memory{Anonymous: int64(anonymous) << 10, File: int64(file) << 10}, nil
}

// Field returns the first number after a name at the beginning of a line. It reads files of /proc,
// metrics of Prometheus and INFO of Redis.
func Field(text, name string) (float64, error) {
	numbers, err := fields(text, name)
	if err != nil {
		return 0, err
	}
	return numbers[0], nil
}

// fields returns the numbers after a name, at least one.
func fields(text, name string) (numbers []float64, err error) {
	for line := range strings.Lines(text) {
		value, found := strings.CutPrefix(line, name)
		if !found {
			continue
		}
		for field := range strings.FieldsSeq(value) {
			n, err := strconv.ParseFloat(field, 64)
			if err != nil {
				break // a unit
			}
			numbers = append(numbers, n)
		}
	}
	if len(numbers) == 0 {
		return nil, fmt.Errorf("reading %q: no such number", name)
	}
	return numbers, nil
}

// Describe names the computer: CPUs, kernel and the version of Go.
func Describe() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := ""
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = ", Linux " + strings.TrimSpace(string(text))
	}
	return fmt.Sprintf("%d CPUs (%s)%s, %s", runtime.NumCPU(), model, kernel, runtime.Version())
}

// CPUs returns the CPUs available to this process.
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

// Niceness during a measurement and after it.
const (
	Favoured = -5
	Normal   = 0
)

// Pin binds all present and future threads of a process to CPUs. It also sets the niceness, if the
// process has that right; without it the measurement is merely less steady.
func Pin(pid, niceness int, cpus ...int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	dir := fmt.Sprintf("/proc/%d/task", pid)
	// A new thread inherits the binding of its creator. A thread created while the list was read may
	// still be unbound, so the list is read until it contains no new thread.
	for bound := map[string]bool{}; ; {
		threads, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("binding process %d to a CPU: %w", pid, err)
		}
		added := false
		for _, thread := range threads {
			if bound[thread.Name()] {
				continue
			}
			added = true
			bound[thread.Name()] = true
			tid, err := strconv.Atoi(thread.Name())
			if err == nil {
				err = unix.SchedSetaffinity(tid, &set)
			}
			if err == nil {
				_ = unix.Setpriority(unix.PRIO_PROCESS, tid, niceness)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) { // the thread has ended
				return fmt.Errorf("binding process %d to a CPU: %w", pid, err)
			}
		}
		if !added {
			return nil
		}
	}
}
