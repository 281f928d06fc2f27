package main

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// writeRuntime puts the figures of the Go runtime into t, under the names that
// every Go program has for them.
func writeRuntime(t *metricsText) {
	t.family("go_info", kindGauge, "The version of Go.")
	t.sample("go_info", 1, "version", runtime.Version())
	t.single("go_goroutines", kindGauge, "Goroutines that exist.", float64(runtime.NumGoroutine()))
	t.single("go_threads", kindGauge, "Threads of the operating system that were created.", float64(pprof.Lookup("threadcreate").Count()))
	t.single("go_sched_gomaxprocs_threads", kindGauge, "Threads that may run Go code at once.", float64(runtime.GOMAXPROCS(0)))

	gc := debug.GCStats{PauseQuantiles: make([]time.Duration, 5)}
	debug.ReadGCStats(&gc)
	t.family("go_gc_duration_seconds", kindSummary, "Pauses of the garbage collector.")
	for i, quantile := range []string{"0", "0.25", "0.5", "0.75", "1"} {
		t.sample("go_gc_duration_seconds", gc.PauseQuantiles[i].Seconds(), "quantile", quantile)
	}
	t.sample("go_gc_duration_seconds_sum", gc.PauseTotal.Seconds())
	t.sample("go_gc_duration_seconds_count", float64(gc.NumGC))

	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for _, f := range []struct {
		name, kind, help string
		value            uint64
	}{
		{"alloc_bytes", kindGauge, "Bytes of objects on the heap.", m.Alloc},
		{"alloc_bytes_total", kindCounter, "Bytes that were allocated so far, even if freed.", m.TotalAlloc},
		{"sys_bytes", kindGauge, "Bytes obtained from the system.", m.Sys},
		{"mallocs_total", kindCounter, "Objects that were allocated so far.", m.Mallocs},
		{"frees_total", kindCounter, "Objects that were freed so far.", m.Frees},
		{"heap_alloc_bytes", kindGauge, "Bytes of objects on the heap.", m.HeapAlloc},
		{"heap_sys_bytes", kindGauge, "Bytes of the heap obtained from the system.", m.HeapSys},
		{"heap_idle_bytes", kindGauge, "Bytes of the heap that wait to be used.", m.HeapIdle},
		{"heap_inuse_bytes", kindGauge, "Bytes of the heap that are in use.", m.HeapInuse},
		{"heap_released_bytes", kindGauge, "Bytes of the heap that were given back to the system.", m.HeapReleased},
		{"heap_objects", kindGauge, "Objects on the heap.", m.HeapObjects},
		{"stack_inuse_bytes", kindGauge, "Bytes of stacks that are in use.", m.StackInuse},
		{"stack_sys_bytes", kindGauge, "Bytes of stacks obtained from the system.", m.StackSys},
		{"mspan_inuse_bytes", kindGauge, "Bytes of the allocator's spans that are in use.", m.MSpanInuse},
		{"mspan_sys_bytes", kindGauge, "Bytes of the allocator's spans obtained from the system.", m.MSpanSys},
		{"mcache_inuse_bytes", kindGauge, "Bytes of the allocator's caches that are in use.", m.MCacheInuse},
		{"mcache_sys_bytes", kindGauge, "Bytes of the allocator's caches obtained from the system.", m.MCacheSys},
		{"buck_hash_sys_bytes", kindGauge, "Bytes of the profiler's table.", m.BuckHashSys},
		{"gc_sys_bytes", kindGauge, "Bytes of the garbage collector's own data.", m.GCSys},
		{"other_sys_bytes", kindGauge, "Other bytes obtained from the system.", m.OtherSys},
		{"next_gc_bytes", kindGauge, "Size of the heap at which the next collection begins.", m.NextGC},
	} {
		t.single("go_memstats_"+f.name, f.kind, f.help, float64(f.value))
	}
	t.single("go_memstats_last_gc_time_seconds", kindGauge, "Unix time of the last collection.", float64(m.LastGC)/1e9)
}

// writeProcess puts the figures of the process into t, where the system has
// Linux's /proc; elsewhere it leaves them out.
func writeProcess(t *metricsText) {
	if stat, err := os.ReadFile("/proc/self/stat"); err == nil {
		if p, ok := parseProcessStat(stat); ok {
			t.single("process_cpu_seconds_total", kindCounter, "CPU time of the process, in user and system mode.", p.cpu)
			t.single("process_virtual_memory_bytes", kindGauge, "Size of the address space.", p.virtual)
			t.single("process_resident_memory_bytes", kindGauge, "Memory of the process that is not swapped out.", p.pages*float64(os.Getpagesize()))
			if system, err := os.ReadFile("/proc/stat"); err == nil {
				t.single("process_start_time_seconds", kindGauge, "Unix time at which the process started.", numberAfter(system, "btime ")+p.start)
			}
		}
	}
	if dir, err := os.Open("/proc/self/fd"); err == nil {
		names, _ := dir.Readdirnames(-1)
		dir.Close()
		t.single("process_open_fds", kindGauge, "Open file descriptors.", float64(len(names)-1)) // without that of dir
	}
	if limits, err := os.ReadFile("/proc/self/limits"); err == nil {
		t.single("process_max_fds", kindGauge, "Limit of open file descriptors.", numberAfter(limits, "Max open files "))
	}
}

// processStat is what /proc/self/stat tells.
type processStat struct {
	cpu     float64 // seconds
	start   float64 // seconds since the system started
	virtual float64 // bytes
	pages   float64
}

// clockTicks is how many there are in a second of /proc, on every Linux that Go
// runs on.
const clockTicks = 100

// parseProcessStat reads the fields that proc(5) numbers 14, 15 and 22 to 24. They
// are counted from the last parenthesis: the name of the program, before it, may
// hold anything.
func parseProcessStat(stat []byte) (p processStat, ok bool) {
	const state = 3 // the number of the first field after the parenthesis
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= 24-state {
		return p, false
	}
	number := func(n int) float64 {
		v, err := strconv.ParseFloat(string(fields[n-state]), 64)
		ok = ok && err == nil
		return v
	}
	ok = true
	p = processStat{
		cpu:     (number(14) + number(15)) / clockTicks,
		start:   number(22) / clockTicks,
		virtual: number(23),
		pages:   number(24),
	}
	return p, ok
}

// numberAfter is the number that follows a name at the beginning of a line; 0 when
// there is none, as for "unlimited".
func numberAfter(file []byte, name string) float64 {
	for line := range strings.Lines(string(file)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			first, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			v, _ := strconv.ParseFloat(first, 64)
			return v
		}
	}
	return 0
}
