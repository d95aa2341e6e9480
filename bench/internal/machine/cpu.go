// Package machine reads what a measurement has to know of the computer it runs
// on: the time that processes and CPUs have worked, and memory. It also binds
// processes to CPUs. It works on Linux only.
package machine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// userHZ is the unit of /proc/stat: a hundredth of a second on every platform
// that Go runs on.
const userHZ = 100

// ProcessCPU returns the CPU time of a process so far, that of its ended
// threads included, by the kernel's own clock of the process. /proc has it in
// steps of 10 ms only.
func ProcessCPU(pid int) (time.Duration, error) {
	// clock_getcpuclockid(3): the complement of the pid above three bits, of
	// which CPUCLOCK_SCHED (2) asks for nanoseconds.
	const cpuclockSched = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|cpuclockSched), &t); err != nil {
		return 0, fmt.Errorf("reading the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// busyTimes returns for how long each CPU has not been idle.
func busyTimes() ([]time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil, fmt.Errorf("reading CPU times: %w", err)
	}
	return parseStat(string(text), irqApart())
}

// parseStat reads /proc/stat (proc_stat(5)). What the hypervisor took (steal)
// counts as work, as it was not there for us. A kernel that accounts for
// interrupts apart does not put them on the bill of the process they came in,
// so they would seem to be a stranger's.
func parseStat(text string, irqApart bool) ([]time.Duration, error) {
	var busy []time.Duration
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 9 || !strings.HasPrefix(fields[0], "cpu") || fields[0] == "cpu" {
			continue
		}
		if fields[0] != "cpu"+strconv.Itoa(len(busy)) {
			return nil, fmt.Errorf("reading CPU times: %s where that of CPU %d should be", fields[0], len(busy))
		}
		var ticks [9]int64 // user nice system idle iowait irq softirq steal, from 1 on
		for i := 1; i < len(ticks); i++ {
			n, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("reading CPU times: %w", err)
			}
			ticks[i] = n
		}
		sum := ticks[1] + ticks[2] + ticks[3] + ticks[8]
		if !irqApart {
			sum += ticks[6] + ticks[7]
		}
		busy = append(busy, time.Duration(sum)*time.Second/userHZ)
	}
	if len(busy) == 0 {
		return nil, fmt.Errorf("reading CPU times: /proc/stat names no CPU")
	}
	return busy, nil
}

// irqApart reports whether the kernel was built with IRQ_TIME_ACCOUNTING, as far
// as the system tells.
func irqApart() bool {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return false
	}
	config, err := os.ReadFile("/boot/config-" + strings.TrimSpace(string(release)))
	return err == nil && strings.Contains(string(config), "CONFIG_IRQ_TIME_ACCOUNTING=y")
}
