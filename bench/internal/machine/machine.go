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

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
)

// userHZ is the unit of /proc/stat: a hundredth of a second on every platform that Go supports.
const userHZ = 100

// ProcessCPU returns the CPU time of a process, ended threads included. It reads the kernel's clock
// of the process, because /proc counts in steps of 10 ms.
func ProcessCPU(pid int) time.Duration {
	defer check.Doing("reading the CPU clock of process %d", pid)
	// clock_getcpuclockid(3): the complement of the pid above three bits; the bits CPUCLOCK_SCHED (2)
	// ask for nanoseconds.
	const cpuclockSched = 2
	var t unix.Timespec
	check.OK(unix.ClockGettime(int32(^pid<<3|cpuclockSched), &t))
	return time.Duration(t.Nano())
}

// busyTime returns how long a CPU has not been idle, from /proc/stat (proc_stat(5)). Time taken by the
// hypervisor (steal) counts as busy. With separateIRQ the kernel does not add interrupts to the
// interrupted process; they are left out, since they would look like the work of another process.
func busyTime(stat string, cpu int, separateIRQ bool) time.Duration {
	ticks := fields(stat, fmt.Sprintf("cpu%d ", cpu))
	if len(ticks) < 8 { // user, nice, system, idle, iowait, irq, softirq, steal
		check.Failf("reading the times of CPU %d: got %d fields, want 8", cpu, len(ticks))
	}
	busy := ticks[0] + ticks[1] + ticks[2] + ticks[7]
	if !separateIRQ {
		busy += ticks[5] + ticks[6]
	}
	return time.Duration(busy) * time.Second / userHZ
}

// separateIRQTime reports whether the kernel has IRQ_TIME_ACCOUNTING, if its configuration is readable.
func separateIRQTime() bool {
	config, _ := os.ReadFile("/boot/config-" + kernel())
	return strings.Contains(string(config), "CONFIG_IRQ_TIME_ACCOUNTING=y")
}

func kernel() string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(release))
}

// Others runs f and returns the largest share of one CPU that other processes used during it, from 0 to
// 1. Known lists the processes of the measurement by the CPU to which each is bound.
func Others(known map[int][]int, f func()) float64 {
	before, begun := otherTimes(known), time.Now()
	f()
	elapsed, after, most := time.Since(begun), otherTimes(known), time.Duration(0)
	for cpu := range known {
		most = max(most, after[cpu]-before[cpu])
	}
	return min(float64(most)/float64(elapsed), 1)
}

// otherTimes returns for each CPU the busy time since boot, less that of the known processes.
func otherTimes(known map[int][]int) map[int]time.Duration {
	stat := check.Value(os.ReadFile("/proc/stat"))
	times := map[int]time.Duration{}
	for cpu, pids := range known {
		times[cpu] = busyTime(string(stat), cpu, separateIRQTime())
		for _, pid := range pids {
			times[cpu] -= ProcessCPU(pid)
		}
	}
	return times
}

// Memory is the resident memory of a process in bytes.
type Memory struct {
	Anonymous int64 // heap and stacks
	File      int64 // mapped pages of files, which the kernel can reclaim
}

// MemoryOf returns the resident memory of a process (proc_pid_status(5)).
func MemoryOf(pid int) Memory {
	text := string(check.Value(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))))
	return Memory{Anonymous: int64(Field(text, "RssAnon:")) << 10, File: int64(Field(text, "RssFile:")) << 10}
}

// Field returns the first number after a name at the beginning of a line, or 0 without one. It reads
// files of /proc, metrics of Prometheus and INFO of Redis.
func Field(text, name string) float64 { return append(fields(text, name), 0)[0] }

// fields returns the numbers after a name.
func fields(text, name string) (numbers []float64) {
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, name); found {
			for field := range strings.FieldsSeq(value) {
				n, err := strconv.ParseFloat(field, 64)
				if err != nil {
					break // a unit
				}
				numbers = append(numbers, n)
			}
		}
	}
	return numbers
}

// Describe names the computer: CPUs, kernel and the version of Go.
func Describe() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	model := runtime.GOARCH
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
		}
	}
	return fmt.Sprintf("%d CPUs (%s), Linux %s, %s", runtime.NumCPU(), model, kernel(), runtime.Version())
}

// CPUs returns the CPUs available to this process.
func CPUs() (cpus []int) {
	var set unix.CPUSet
	check.OK(unix.SchedGetaffinity(0, &set))
	for cpu := 0; len(cpus) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus
}

// Pin binds all present and future threads of a process to CPUs.
func Pin(pid int, cpus ...int) {
	defer check.Doing("binding process %d to a CPU", pid)
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	// A new thread inherits the binding of its creator. A thread created while the list was read may
	// still be unbound, so the list is read until it contains no new thread.
	bound := map[string]bool{}
	for added := true; added; {
		added = false
		for _, thread := range check.Value(os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))) {
			if bound[thread.Name()] {
				continue
			}
			added, bound[thread.Name()] = true, true
			tid := check.Value(strconv.Atoi(thread.Name()))
			if err := unix.SchedSetaffinity(tid, &set); !errors.Is(err, unix.ESRCH) { // otherwise it has ended
				check.OK(err)
			}
		}
	}
}
