package main

import (
	"fmt"
	"net/http"
	"runtime/pprof"
	"strconv"
	"time"
)

// The profiles that "go tool pprof" asks for under /debug/pprof/. They are served
// here and not by net/http/pprof, which makes the binary 300 kB larger for reading
// profiles that nobody asks it to read.

const (
	profileTime    = 30 * time.Second // of a CPU profile, when the request does not say
	maxProfileTime = 10 * time.Minute
)

// operatorHandler is what METRICS_ADDR serves, to whoever can reach it.
func (s *server) operatorHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	mux.HandleFunc("GET /debug/pprof/{$}", handleProfiles)
	mux.HandleFunc("GET /debug/pprof/profile", handleCPUProfile)
	mux.HandleFunc("GET /debug/pprof/{name}", handleProfile)
	return mux
}

// handleProfiles lists the profiles that there are.
func handleProfiles(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "profile?seconds=%.0f\n", profileTime.Seconds())
	for _, p := range pprof.Profiles() {
		fmt.Fprintf(w, "%s\t%d\n", p.Name(), p.Count())
	}
}

// handleProfile serves a profile, as text with the parameter debug=1 or 2.
func handleProfile(w http.ResponseWriter, r *http.Request) {
	p := pprof.Lookup(r.PathValue("name"))
	if p == nil {
		http.Error(w, "unknown profile; /debug/pprof/ lists those that there are", http.StatusNotFound)
		return
	}
	debug, _ := strconv.Atoi(r.FormValue("debug"))
	if debug == 0 {
		w.Header().Set("Content-Type", "application/octet-stream")
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	p.WriteTo(w, debug)
}

// handleCPUProfile watches the process for as long as the parameter seconds says.
func handleCPUProfile(w http.ResponseWriter, r *http.Request) {
	length, err := profileTime, error(nil)
	if seconds := r.FormValue("seconds"); seconds != "" {
		length, err = time.ParseDuration(seconds + "s")
	}
	if err != nil || length <= 0 || length > maxProfileTime {
		http.Error(w, "seconds: accepted: a number above 0, at most 600", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := pprof.StartCPUProfile(w); err != nil {
		http.Error(w, err.Error()+"; one at a time is taken", http.StatusConflict)
		return
	}
	defer pprof.StopCPUProfile()
	select {
	case <-time.After(length):
	case <-r.Context().Done():
	}
}
