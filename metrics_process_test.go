package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestParseProcessStat(t *testing.T) {
	fields := func(name string) string {
		line := "42 (" + name + ") S"
		for n := 4; n <= 52; n++ {
			line += fmt.Sprint(" ", n*100)
		}
		return line + "\n"
	}
	want := processStat{cpu: (1400 + 1500) / 100.0, start: 2200 / 100.0, virtual: 2300, pages: 2400}
	for _, name := range []string{"apiproxy", "a) S 1 2 3 (b", ""} {
		if got, ok := parseProcessStat([]byte(fields(name))); got != want || !ok {
			t.Errorf("the name %q: %+v, %t, want %+v", name, got, ok, want)
		}
	}
	for _, bad := range []string{"", "1 (a) S 1 2", strings.Replace(fields("a"), " 1400 ", " x ", 1), strings.Replace(fields("a"), " 2400 ", " - ", 1)} {
		if got, ok := parseProcessStat([]byte(bad)); ok {
			t.Errorf("%q is read as %+v", bad, got)
		}
	}
}

func FuzzParseProcessStat(f *testing.F) {
	if stat, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(stat)
	}
	f.Add([]byte("1 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		p, ok := parseProcessStat(stat)
		if ok && !strings.Contains(string(stat), " ") {
			t.Errorf("%q is read as %+v", stat, p)
		}
	})
}

func TestNumberAfter(t *testing.T) {
	const limits = "Limit  Soft  Hard\nMax open files            1024                 4096                 files\nMax cpu time              unlimited            unlimited            seconds\n"
	for name, want := range map[string]float64{"Max open files ": 1024, "Max cpu time ": 0, "open files": 0, "": 0} {
		if got := numberAfter([]byte(limits), name); got != want {
			t.Errorf("the number after %q is %v, want %v", name, got, want)
		}
	}
}
