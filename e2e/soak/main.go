// Soak puts a built gateway under load for minutes, in front of an upstream of its
// own, with the memory store and with a Redis: thousands of streams at once,
// thousands of clients that leave, hours' worth of sessions, kill -9. After all of
// it, nothing may be lost, and what the process holds must be what it held before.
//
//	e2e/soak/run -short    what CI runs, in less than a minute
//	e2e/soak/run           everything, in about half an hour
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A plan says how much of everything there is.
type plan struct {
	streams       int // at once
	idle, hanging int // connections that ask nothing, calls that are not answered
	aborts        int
	soak          time.Duration // for each store
	kills         int
	settle        time.Duration // for the process to let go of what it holds: an idle one collects garbage every two minutes
}

var (
	whole = plan{streams: 5000, idle: 3000, hanging: 1500, aborts: 20_000, soak: 15 * time.Minute, kills: 30, settle: 6 * time.Minute}
	short = plan{streams: 1000, idle: 500, hanging: 200, aborts: 1500, soak: 4 * time.Second, kills: 3, settle: 20 * time.Second}
)

// A run is the plan under way.
type run struct {
	plan
	dir    string
	binary string
	up     *upstream
	failed bool
}

func main() {
	isShort := flag.Bool("short", false, "the short form")
	binary := flag.String("binary", "", "a gateway that is built already; unset: it is built first")
	soak := flag.Duration("soak", 0, "how long to soak each store, if not as the form has it")
	flag.Parse()
	r := &run{plan: whole, binary: *binary}
	if *isShort {
		r.plan = short
	}
	r.soak = cmp.Or(*soak, r.soak)
	if err := r.all(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		r.failed = true
	}
	if r.failed {
		os.Exit(1)
	}
}

func (r *run) all() error {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r.dir = dir
	if r.binary == "" {
		r.binary = filepath.Join(dir, "apiproxy")
		build := exec.Command("go", "build", "-o", r.binary, ".")
		build.Dir, build.Stderr = filepath.Join("..", ".."), os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("building the gateway: %w", err)
		}
	}
	if r.up, err = startUpstream(); err != nil {
		return err
	}
	redis, err := startRedis(dir)
	if err != nil {
		return err
	}
	defer redis.stop()
	for _, store := range []string{"", redis.url} {
		if err := r.load(store); err != nil {
			return err
		}
	}
	return r.killing(redis.url)
}

// load is everything that one gateway must bear, and outlive unchanged.
func (r *run) load(store string) error {
	name := "memory"
	if store != "" {
		name = "redis"
	}
	g, err := r.startGateway("127.0.0.1:0", "REDIS_URL="+store, "MEMORY_STORE_MAX_BYTES=8MiB", "SESSION_MAX_TURNS=20")
	if err != nil {
		return err
	}
	defer g.kill()
	slow := func() error { return nil }
	if store == "" { // once is enough: no store is asked
		slow = g.dripHeaders(50)
	}
	g.warmUp()
	before := g.usage()
	r.step(name+": streams at once", func() error { return g.streams(r.streams) })
	r.step(name+": idle and hanging clients", func() error { return g.crowd(r.idle, r.hanging) })
	r.step(name+": clients that leave", func() error { return g.aborts(r.aborts) })
	r.step(name+": what they leave behind", func() error { return g.settled(before, r.settle) })
	r.step(name+": soak", func() error { return g.soak(r.soak) })
	r.step(name+": headers that drip", slow)
	r.step(name+": the end", g.end)
	return nil
}

// step reports how a step went, and how long it took.
func (r *run) step(name string, do func() error) {
	began := time.Now()
	err := do()
	took := time.Since(began).Round(10 * time.Millisecond)
	if err != nil {
		r.failed = true
		fmt.Printf("FAIL %s (%v): %v\n", name, took, err)
		return
	}
	fmt.Printf("ok   %s (%v)\n", name, took)
}
