package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gomodule/redigo/redis"
)

// redisServer is a redis-server of a test's own. It ends with the test.
type redisServer struct {
	t    testing.TB
	addr string // host:port
	args []string

	process *os.Process
	ended   chan struct{} // closed when process has ended
}

// startRedis starts a redis-server that keeps nothing on disk, unless args, which
// are those of its command line, say otherwise. It returns nil, and the test has
// nothing to do, on a machine without the program; under CI that is a failure.
func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	program, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("redis-server is not installed: %v", err)
		}
		t.Logf("redis-server is not installed, its tests are left out: %v", err)
		return nil
	}
	r := &redisServer{t: t}
	dir := t.TempDir()
	t.Cleanup(r.kill)
	for range 5 {
		port := freePort(t)
		r.addr = net.JoinHostPort("127.0.0.1", port)
		r.args = append([]string{program, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", ""}, args...)
		if r.start() {
			return r
		}
	}
	t.Fatalf("redis-server did not start: %v", r.args)
	return nil
}

// freePort is a port below those that the system hands out by itself: a server
// that is killed must find its own free again.
func freePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(10000 + mathrand.IntN(20000))
		if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port was found")
	return ""
}

// start says whether the server came up; it does not when another process took
// the port meanwhile.
func (r *redisServer) start() bool {
	cmd := exec.Command(r.args[0], r.args[1:]...)
	log := &readyLog{ready: make(chan struct{})}
	cmd.Stdout = log
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	r.process, r.ended = cmd.Process, ended
	select {
	case <-log.ready:
		return true
	case <-ended:
		return false
	}
}

// A readyLog waits for the server's own word that it is ready: what answers at
// its port may be somebody else.
type readyLog struct {
	seen  []byte
	ready chan struct{} // closed at that word
}

func (l *readyLog) Write(p []byte) (int, error) {
	if l.seen = append(l.seen, p...); bytes.Contains(l.seen, []byte("Ready to accept connections")) {
		select {
		case <-l.ready:
		default:
			close(l.ready)
		}
	}
	return len(p), nil
}

func (r *redisServer) url() string { return "redis://" + r.addr }

// pause makes the server hang: connections stay open, nothing is answered.
func (r *redisServer) pause() { r.signal("-STOP") }

func (r *redisServer) resume() { r.signal("-CONT") }

func (r *redisServer) signal(name string) {
	r.t.Helper()
	if out, err := exec.Command("kill", name, strconv.Itoa(r.process.Pid)).CombinedOutput(); err != nil {
		r.t.Fatalf("kill %s: %v: %s", name, err, out)
	}
}

// kill ends the server at once, whatever it is doing.
func (r *redisServer) kill() {
	if r.process != nil {
		r.process.Kill() // an error means that it has ended already
		<-r.ended
	}
}

// restart starts a killed server on the port it had.
func (r *redisServer) restart() {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !r.start(); {
		if time.Now().After(deadline) {
			r.t.Fatal("redis-server did not come back")
		}
	}
}

// do runs a command on a connection of its own.
func (r *redisServer) do(command string, args ...any) any {
	r.t.Helper()
	c, err := redis.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	reply, err := c.Do(command, args...)
	if err != nil {
		r.t.Fatalf("%s: %v", command, err)
	}
	return reply
}

// openRedis opens a store that ends with the test.
func openRedis(t testing.TB, rawURL string, limits storeLimits) *redisStore {
	t.Helper()
	s, err := newRedisStore(rawURL, "test:", limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func openRedisBenchmark(b *testing.B, limits storeLimits) Store {
	r := startRedis(b)
	if r == nil {
		return nil
	}
	return openRedis(b, r.url(), limits)
}

func wantDown(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, errStoreDown) {
		t.Errorf("%s: %v, want errStoreDown", what, err)
	}
}

func TestRedisStore(t *testing.T) {
	r := startRedis(t)
	if r == nil {
		return
	}
	n := 0
	testStore(t, func(t *testing.T, limits storeLimits) Store {
		n++
		s, err := newRedisStore(r.url(), fmt.Sprintf("suite%d:", n), limits)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestRedisStoreKeys(t *testing.T) {
	r := startRedis(t)
	if r == nil {
		return
	}
	s := openRedis(t, r.url(), storeLimits{time.Hour, 2})
	key := "test:session:{owner:a%7D%2A}"
	k := sessionKey{"owner", "a}*"}
	wantKeys := func(want ...string) {
		t.Helper()
		got, err := redis.Strings(r.do("KEYS", "*"), nil)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Redis has the keys %q, %v, want %q", got, err, want)
		}
	}
	wantLife := func(key string, ttl time.Duration) {
		t.Helper()
		left, err := redis.Int64(r.do("PTTL", key), nil)
		if err != nil || left > ttl.Milliseconds() || left < ttl.Milliseconds()-60_000 {
			t.Errorf("key %q lives for %d ms, %v, want %v", key, left, err, ttl)
		}
	}
	for n := range 5 {
		mustAppend(t, s, k, testWrite(fmt.Sprint(n%2), n, testTurn(n)))
	}
	wantKeys(key)
	wantLife(key, time.Hour)

	r.do("PEXPIRE", key, 100_000)
	mustHistory(t, s, k)
	wantLife(key, 100*time.Second) // reading changes nothing
	mustReplace(t, s, k, testWrite("0", 9, testTurn(9)))
	wantLife(key, time.Hour)

	// Nothing is left of turns and threads that went.
	for n := range 40 {
		w := testWrite(fmt.Sprint(n%20), n, testTurn(n))
		w.System = []byte("system")
		mustAppend(t, s, k, w)
	}
	fields, err := redis.Int(r.do("HLEN", key), nil)
	if want := 1 + maxThreads*(2+2); err != nil || fields != want {
		t.Errorf("%d threads of one turn take %d fields, %v, want %d", maxThreads, fields, err, want)
	}

	if err := s.Set(t.Context(), "models", []byte("[]"), time.Minute); err != nil {
		t.Fatal(err)
	}
	wantKeys("test:models", key)
	wantLife("test:models", time.Minute)
	if err := s.Delete(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	wantKeys("test:models")
}

func TestRedisStoreForgottenScripts(t *testing.T) {
	r := startRedis(t)
	if r == nil {
		return
	}
	s := openRedis(t, r.url(), usualLimits)
	for n := range 3 {
		r.do("SCRIPT", "FLUSH")
		mustAppend(t, s, usualKey, testWrite("main", n, testTurn(n)))
		r.do("SCRIPT", "FLUSH")
		mustHistory(t, s, usualKey)
	}
	wantTurns(t, onlyThread(t, s, usualKey), testTurn(0), testTurn(1), testTurn(2))
}

// A Redis that was restarted between two calls costs no call: every pooled
// connection is dead, and none is noticed. What was acknowledged is still there.
func TestRedisStoreRestart(t *testing.T) {
	r := startRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	if r == nil {
		return
	}
	s := openRedis(t, r.url(), usualLimits)
	var all []turn
	for round := range 3 {
		manyReads(t, s)
		all = append(all, testTurn(round))
		mustAppend(t, s, usualKey, testWrite("main", round, testTurn(round)))
		r.kill()
		r.restart()
		wantTurns(t, onlyThread(t, s, usualKey), all...)
	}
}

// manyReads leaves connections in the pool.
func manyReads(t *testing.T, s Store) {
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if _, err := s.Get(t.Context(), "nothing"); !errors.Is(err, errNotFound) {
				t.Errorf("Get() = %v, want errNotFound", err)
			}
		})
	}
	wg.Wait()
}

func TestRedisStoreKilled(t *testing.T) {
	r := startRedis(t)
	if r == nil {
		return
	}
	s := openRedis(t, r.url(), usualLimits)
	mustAppend(t, s, usualKey, testWrite("main", 0, testTurn(0)))
	r.kill()
	_, err := s.History(t.Context(), usualKey, threadPick{})
	wantDown(t, "History()", err)
	_, err = s.Get(t.Context(), "key")
	wantDown(t, "Get()", err)
	wantDown(t, "Append()", s.Append(t.Context(), usualKey, testWrite("main", 0, testTurn(0))))
	wantDown(t, "Replace()", s.Replace(t.Context(), usualKey, testWrite("main", 0, testTurn(0))))
	wantDown(t, "Delete()", s.Delete(t.Context(), usualKey))
	wantDown(t, "Set()", s.Set(t.Context(), "key", nil, time.Hour))
	wantDown(t, "Ping()", s.Ping(t.Context()))
	r.restart()
	// Nobody calls Ping: the calls find out by themselves.
	eventually(t, "the use of Redis after its restart", func() bool {
		return s.Append(t.Context(), usualKey, testWrite("main", 0, testTurn(0))) == nil
	})
	wantTurns(t, onlyThread(t, s, usualKey), testTurn(0))
}

func TestRedisStoreAbsentAtStart(t *testing.T) {
	r := startRedis(t)
	if r == nil {
		return
	}
	r.kill()
	s := openRedis(t, r.url(), usualLimits)
	wantDown(t, "Ping()", s.Ping(t.Context()))
	r.restart()
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping() of a Redis that has come up = %v, want nil", err)
	}
	mustAppend(t, s, usualKey, testWrite("main", 0, testTurn(0))) // at once: Ping has let calls through again
}

// A Redis that hangs costs the first callers the time-out and the others nothing.
// What it was told meanwhile it does later; the repetition changes nothing.
func TestRedisStorePaused(t *testing.T) {
	r := startRedis(t)
	if r == nil {
		return
	}
	s := openRedis(t, r.url(), usualLimits)
	s.timeout = 300 * time.Millisecond
	mustAppend(t, s, usualKey, testWrite("main", 0, testTurn(0)))
	replacement := testWrite("main", 1, testTurn(0), testTurn(1))
	appended := testWrite("main", 2, testTurn(2))
	r.pause()
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			_, err := s.Get(t.Context(), "key")
			wantDown(t, "Get()", err)
		})
	}
	wg.Go(func() { wantDown(t, "Replace()", s.Replace(t.Context(), usualKey, replacement)) })
	wg.Wait()
	s.breaker.mu.Lock()
	if s.breaker.failures != 1 {
		t.Errorf("%d failures after calls that failed together, want 1", s.breaker.failures)
	}
	s.breaker.retryAt = time.Now().Add(time.Hour) // so that a slow machine does not try again yet
	s.breaker.mu.Unlock()
	for range 1000 {
		err := s.Append(t.Context(), usualKey, appended)
		wantDown(t, "Append()", err)
		if !strings.Contains(err.Error(), "not asked again yet") {
			t.Fatalf("Append() = %v, want it not to ask Redis", err)
		}
	}
	err := s.Ping(t.Context())
	wantDown(t, "Ping()", err)
	if strings.Contains(err.Error(), "not asked again yet") {
		t.Errorf("Ping() = %v, want it to ask Redis", err)
	}
	r.resume()
	s.timeout = storeTimeout
	if err := s.Ping(t.Context()); err != nil {
		t.Fatalf("Ping() = %v, want nil", err)
	}
	mustReplace(t, s, usualKey, replacement)
	mustAppend(t, s, usualKey, appended)
	mustReplace(t, s, usualKey, replacement)
	wantTurns(t, onlyThread(t, s, usualKey), testTurn(0), testTurn(1), testTurn(2))
}

// The client's leaving neither cuts a command off nor counts against Redis.
func TestRedisStoreCancelled(t *testing.T) {
	r := startRedis(t)
	if r == nil {
		return
	}
	s := openRedis(t, r.url(), usualLimits)
	const values = 50
	for n := range values {
		if err := s.Set(t.Context(), fmt.Sprint(n), fmt.Appendf(nil, "value %d", n), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for worker := range 40 {
		wg.Go(func() {
			for n := range 50 {
				n = (n*7 + worker) % values
				ctx, cancel := context.WithCancel(t.Context())
				go func() { runtime.Gosched(); cancel() }()
				wantValueContext(t, ctx, s, fmt.Sprint(n), fmt.Sprintf("value %d", n))
			}
		})
	}
	wg.Wait()

	r.pause()
	ctx, cancel := context.WithCancel(t.Context())
	for worker := range 20 {
		wg.Go(func() {
			wantValueContext(t, ctx, s, fmt.Sprint(worker), fmt.Sprintf("value %d", worker))
		})
	}
	cancel()
	r.resume()
	wg.Wait()
	wantValue(t, s, "7", "value 7")
}

func wantValueContext(t *testing.T, ctx context.Context, s Store, key, want string) {
	t.Helper()
	got, err := s.Get(ctx, key)
	if err != nil || string(got) != want {
		t.Errorf("Get(%q) = %q, %v, want %q, nil", key, got, err, want)
	}
}

// However many call at once, Redis sees a bounded number of connections, and
// none once the store is closed.
func TestRedisStoreConnections(t *testing.T) {
	r := startRedis(t)
	if r == nil {
		return
	}
	goroutines := runtime.NumGoroutine()
	s := openRedis(t, r.url(), usualLimits)
	clients := func() int {
		list, err := redis.String(r.do("INFO", "clients"), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(list, "connected_clients:")
		n, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		return n - 1 // the one that asks
	}
	for range 2 {
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if _, err := s.Get(t.Context(), "nothing"); !errors.Is(err, errNotFound) {
					t.Errorf("Get() = %v, want errNotFound", err)
				}
			})
		}
		wg.Wait()
		if got := clients(); got < 1 || got > redisMaxConns {
			t.Errorf("%d connections, want 1 to %d", got, redisMaxConns)
		}
		r.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	}
	if len(s.slots) != 0 {
		t.Errorf("%d slots are taken with no call under way", len(s.slots))
	}
	s.Close()
	eventually(t, "the end of all connections", func() bool { return clients() == 0 })
	eventually(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= goroutines })
	wantDown(t, "Ping() of a closed store", s.Ping(t.Context()))
}

// A Redis that answers, but refuses, is down for what it refuses alone; what it
// refuses it does not do by half.
func TestRedisStoreRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		set     [][]any
		reset   []any
		want    string // regexp
		canRead bool
	}{
		{
			name:    "out of memory",
			set:     [][]any{{"CONFIG", "SET", "maxmemory-policy", "noeviction"}, {"CONFIG", "SET", "maxmemory", "1"}},
			reset:   []any{"CONFIG", "SET", "maxmemory", "0"},
			want:    "OOM",
			canRead: true,
		},
		{
			name:    "no replicas",
			set:     [][]any{{"CONFIG", "SET", "min-replicas-to-write", "1"}},
			reset:   []any{"CONFIG", "SET", "min-replicas-to-write", "0"},
			want:    "NOREPLICAS",
			canRead: true,
		},
		{
			name:    "read-only replica",
			set:     [][]any{{"REPLICAOF", "127.0.0.1", "1"}},
			reset:   []any{"REPLICAOF", "NO", "ONE"},
			want:    "READONLY",
			canRead: true,
		},
		{
			name:  "replica without its master",
			set:   [][]any{{"CONFIG", "SET", "replica-serve-stale-data", "no"}, {"REPLICAOF", "127.0.0.1", "1"}},
			reset: []any{"REPLICAOF", "NO", "ONE"},
			want:  "MASTERDOWN|READONLY",
		},
		{
			name:    "no permission",
			set:     [][]any{{"ACL", "SETUSER", "default", "-@write"}},
			reset:   []any{"ACL", "SETUSER", "default", "+@all"},
			want:    "permission|can't run this command",
			canRead: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startRedis(t)
			if r == nil {
				return
			}
			s := openRedis(t, r.url(), storeLimits{time.Hour, 2})
			mustAppend(t, s, usualKey, testWrite("main", 0, testTurn(0)))
			mustAppend(t, s, usualKey, testWrite("main", 1, testTurn(1)))
			for _, command := range tt.set {
				r.do(command[0].(string), command[1:]...)
			}
			trims := testWrite("main", 2, testTurn(2))
			replaces := testWrite("main", 2, testTurn(3))
			replaces.Replaces = testTurn(1).ID
			for range 5 {
				for what, err := range map[string]error{
					"Append() that trims":    s.Append(t.Context(), usualKey, trims),
					"Append() that replaces": s.Append(t.Context(), usualKey, replaces),
					"Replace()":              s.Replace(t.Context(), usualKey, testWrite("main", 3, testTurn(4))),
					"Set()":                  s.Set(t.Context(), "key", []byte("x"), time.Hour),
				} {
					wantDown(t, what, err)
					if err != nil && !regexp.MustCompile(tt.want).MatchString(err.Error()) {
						t.Errorf("%s: %v, want it to name %s", what, err, tt.want)
					}
				}
			}
			if tt.canRead {
				wantTurns(t, onlyThread(t, s, usualKey), testTurn(0), testTurn(1))
			} else {
				_, err := s.History(t.Context(), usualKey, threadPick{})
				wantDown(t, "History()", err)
			}
			r.do(tt.reset[0].(string), tt.reset[1:]...)
			mustAppend(t, s, usualKey, replaces)
			wantTurns(t, onlyThread(t, s, usualKey), testTurn(0), testTurn(3))
		})
	}
}

// Keys that hold something else are an error, not a panic.
func TestRedisStoreForeignData(t *testing.T) {
	r := startRedis(t)
	if r == nil {
		return
	}
	s := openRedis(t, r.url(), usualLimits)
	key := s.sessionKey(usualKey)
	const session = "\x83\xa7created\xa11\xa7updated\xa11\xa7threads\x91\xa4main" // MessagePack
	for _, tt := range []struct {
		name    string
		command []any
	}{
		{"string", []any{"SET", key, "x"}},
		{"list", []any{"LPUSH", key, "x"}},
		{"not MessagePack", []any{"HSET", key, "m", "x", "h:main", "x"}},
		{"empty head", []any{"HSET", key, "m", session, "h:main", "\x80"}},
	} {
		r.do("DEL", key)
		r.do(tt.command[0].(string), tt.command[1:]...)
		_, err := s.History(t.Context(), usualKey, threadPick{Kind: pickAll})
		wantDown(t, tt.name+": History()", err)
		wantDown(t, tt.name+": Append()", s.Append(t.Context(), usualKey, testWrite("main", 0, testTurn(0))))
	}
	r.do("LPUSH", "test:key", "x")
	_, err := s.Get(t.Context(), "key")
	wantDown(t, "Get()", err)
}

func TestRedisStoreAddresses(t *testing.T) {
	// A socket's path has little room, less than t.TempDir may take.
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "a b.sock")
	r := startRedis(t, "--requirepass", "p/s?s:w@rd", "--unixsocket", socket)
	if r == nil {
		return
	}
	const password = "p%2Fs%3Fs%3Aw%40rd"
	path := strings.ReplaceAll(socket, " ", "%20")
	admin := openRedis(t, "redis://:"+password+"@"+r.addr, usualLimits)
	if _, err := admin.do(t.Context(), "ACL", "SETUSER", "alice", "on", ">alice secret", "~*", "+@all"); err != nil {
		t.Fatal(err)
	}
	for n, rawURL := range []string{
		"redis://:" + password + "@" + r.addr,
		"redis://" + password + "@" + r.addr + "/",
		"redis://default:" + password + "@" + r.addr + "/3",
		"redis://alice:alice%20secret@" + r.addr + "?db=4",
		"unix://:" + password + "@" + path,
		"unix://alice:alice%20secret@" + path + "?db=5",
	} {
		s := openRedis(t, rawURL, usualLimits)
		if err := s.Set(t.Context(), "key", fmt.Append(nil, n), time.Hour); err != nil {
			t.Errorf("Set() on %s = %v, want nil", rawURL, err)
		}
	}
	for database, want := range map[int]string{0: "4", 3: "2", 4: "3", 5: "5"} {
		s := openRedis(t, fmt.Sprintf("redis://:%s@%s/%d", password, r.addr, database), usualLimits)
		wantValue(t, s, "key", want)
	}
	for _, tt := range []struct{ rawURL, want string }{
		{"redis://" + r.addr, "NOAUTH"},
		{"redis://:hidden@" + r.addr, "password was refused: WRONGPASS"},
		{"redis://alice:hidden@" + r.addr, "password was refused: WRONGPASS"},
		{"redis://:" + password + "@" + r.addr + "/77", "database 77"},
		{"unix://:hidden@" + path + "x", "no such file"},
	} {
		s := openRedis(t, tt.rawURL, usualLimits)
		err := s.Ping(t.Context())
		wantDown(t, "Ping()", err)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("Ping() on %s = %v, want %q and no password", tt.rawURL, err, tt.want)
		}
	}
}

// A server that does not know AUTH repeats what it was sent, Redis in one way and
// others in theirs.
func TestRedisStorePasswordStaysSecret(t *testing.T) {
	other, _ := fakeRedis(t, func(c net.Conn, _ int) {
		words, _ := readCommand(bufio.NewReader(c))
		fmt.Fprintf(c, "-ERR what is %s?\r\n", strings.Join(words, " "))
	})
	addrs := []string{strings.TrimPrefix(other, "redis://")}
	if r := startRedis(t, "--rename-command", "AUTH", ""); r != nil {
		addrs = append(addrs, r.addr)
	}
	for _, addr := range addrs {
		s := openRedis(t, "redis://user:hidden@"+addr, usualLimits)
		err := s.Ping(t.Context())
		wantDown(t, "Ping()", err)
		if strings.Contains(err.Error(), "hidden") {
			t.Errorf("Ping() = %v, shows the password", err)
		}
		if text := fmt.Sprintf("%v %+v %v %+v", s.address, s.address, s, s); strings.Contains(text, "hidden") {
			t.Errorf("the store is printed as %s, shows the password", text)
		}
	}
}

func TestRedisStoreTLS(t *testing.T) {
	dir := t.TempDir()
	roots := writeRedisCertificate(t, dir)
	port := freePort(t)
	r := startRedis(t, "--tls-port", port, "--tls-auth-clients", "no",
		"--tls-cert-file", filepath.Join(dir, "cert.pem"), "--tls-key-file", filepath.Join(dir, "key.pem"),
		"--tls-ca-cert-file", filepath.Join(dir, "cert.pem"))
	if r == nil {
		return
	}
	s := openRedis(t, "rediss://localhost:"+port+"/1", usualLimits)
	wantDown(t, "Ping() with an unknown certificate", s.Ping(t.Context()))

	s = openRedis(t, "rediss://localhost:"+port+"/1", usualLimits)
	s.address.tls.RootCAs = roots
	mustAppend(t, s, usualKey, testWrite("main", 0, testTurn(0)))
	wantTurns(t, onlyThread(t, s, usualKey), testTurn(0))
	s.timeout = 200 * time.Millisecond
	r.pause()
	wantDown(t, "Ping() of a server that hangs", s.Ping(t.Context()))
	r.resume()

	s = openRedis(t, "rediss://127.0.0.1:"+port, usualLimits)
	s.address.tls.RootCAs = roots
	wantDown(t, "Ping() under another name than the certificate's", s.Ping(t.Context()))

	s = openRedis(t, "rediss://"+r.addr, usualLimits)
	s.timeout = 200 * time.Millisecond
	wantDown(t, "Ping() of a port without TLS", s.Ping(t.Context()))
}

// writeRedisCertificate makes a certificate for localhost that signs itself.
func writeRedisCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotAfter:              time.Now().Add(time.Hour),
		DNSNames:              []string{"localhost"},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return roots
}

// closing is a connection that only tells whether it was closed.
type closing struct {
	net.Conn
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

func TestRedisSocketClosesBeneathTLS(t *testing.T) {
	var secured, raw closing
	(&redisSocket{Conn: &secured, raw: &raw}).Close()
	if secured.closed || !raw.closed {
		t.Errorf("closed TLS: %t, the connection beneath: %t, want false, true: TLS may wait for its peer", secured.closed, raw.closed)
	}
}

func TestMilliseconds(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		-time.Second: 1, 0: 1, 1: 1, time.Millisecond: 1, time.Millisecond + 1: 2, time.Hour: 3_600_000,
	} {
		if got := milliseconds(d); got != want {
			t.Errorf("milliseconds(%v) = %d, want %d", d, got, want)
		}
	}
}

// fakeRedis answers each connection with serve, and counts them.
func fakeRedis(t *testing.T, serve func(c net.Conn, n int)) (rawURL string, connections *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	connections = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n := int(connections.Add(1))
			go func() {
				defer c.Close()
				serve(c, n)
			}()
		}
	}()
	return "redis://" + l.Addr().String(), connections
}

// readCommand reads one command, an array of strings.
func readCommand(r *bufio.Reader) ([]string, error) {
	readLength := func() (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := readLength()
	if err != nil {
		return nil, err
	}
	words := make([]string, n)
	for i := range words {
		length, err := readLength()
		if err != nil {
			return nil, err
		}
		word := make([]byte, length+2)
		if _, err := io.ReadFull(r, word); err != nil {
			return nil, err
		}
		words[i] = string(word[:length])
	}
	return words, nil
}

func TestRedisStoreOddServers(t *testing.T) {
	for _, tt := range []struct{ name, answer string }{
		{"closes at once", ""},
		{"speaks HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{"half an answer", "$100\r\nabc"},
		{"wrong length", "$abc\r\n"},
		{"huge line end", "$3\r\nabcdef\r\n"},
		{"empty line", "\r\n"},
		{"integer for a script and a value", ":7\r\n"},
		{"empty array", "*0\r\n"},
		{"array of the wrong kind", "*3\r\n:1\r\n:2\r\n:3\r\n"},
		{"array too short", "*2\r\n$1\r\n1\r\n$1\r\n1\r\n"},
		{"unknown error", "-ERR unknown command 'GET', with args beginning with: 'hidden'\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rawURL, _ := fakeRedis(t, func(c net.Conn, _ int) {
				r := bufio.NewReader(c)
				for {
					if _, err := readCommand(r); err != nil {
						return
					}
					io.WriteString(c, tt.answer)
					if !strings.HasSuffix(tt.answer, "\r\n") {
						return
					}
				}
			})
			s := openRedis(t, rawURL, usualLimits)
			_, err := s.History(t.Context(), usualKey, threadPick{Kind: pickAll})
			wantDown(t, "History()", err)
			_, err = s.Get(t.Context(), "key")
			wantDown(t, "Get()", err)
			if err != nil && strings.Contains(err.Error(), "hidden") {
				t.Errorf("Get() = %v, shows the arguments", err)
			}
		})
	}
}

// A caller that gets no connection fails in time, and does not count against
// Redis.
func TestRedisStoreBusy(t *testing.T) {
	s := openRedis(t, "redis://127.0.0.1:1", usualLimits)
	s.timeout = 10 * time.Millisecond
	for range redisMaxConns {
		s.slots <- struct{}{}
	}
	_, err := s.Get(t.Context(), "key")
	wantDown(t, "Get()", err)
	if err != nil && !strings.Contains(err.Error(), "became free") {
		t.Errorf("Get() = %v, want an error about connections", err)
	}
	if !s.breaker.allows() {
		t.Error("a busy store keeps calls out")
	}
}

// A proxy before Redis that drops a connection now and then costs no call.
func TestRedisStoreDroppedConnections(t *testing.T) {
	rawURL, connections := fakeRedis(t, func(c net.Conn, n int) {
		r := bufio.NewReader(c)
		for range 3 {
			if _, err := readCommand(r); err != nil {
				return
			}
			io.WriteString(c, "$1\r\nx\r\n")
		}
		readCommand(r) // and leave it unanswered
	})
	s := openRedis(t, rawURL, usualLimits)
	for range 30 {
		wantValue(t, s, "key", "x")
	}
	if n := connections.Load(); n != 10 {
		t.Errorf("%d connections, want 10: 3 answers on each", n)
	}
}

// Half an answer is never the beginning of the next one's.
func TestRedisStoreCutAnswer(t *testing.T) {
	cut := make(chan struct{})
	defer close(cut)
	rawURL, connections := fakeRedis(t, func(c net.Conn, n int) {
		r := bufio.NewReader(c)
		for {
			command, err := readCommand(r)
			if err != nil {
				return
			}
			key := command[1]
			if key == "test:slow" {
				fmt.Fprint(c, "$1000000\r\n$4\r\nevil\r\n")
				<-cut
				return
			}
			fmt.Fprintf(c, "$%d\r\n%s\r\n", len(key), key)
		}
	})
	s := openRedis(t, rawURL, usualLimits)
	wantValue(t, s, "a", "test:a")
	s.timeout = 100 * time.Millisecond
	_, err := s.Get(t.Context(), "slow")
	s.timeout = storeTimeout
	wantDown(t, "Get() of an answer that does not end", err)
	// Redis was answering: the calls of others go on.
	wantValue(t, s, "b", "test:b")
	wantValue(t, s, "c", "test:c")
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections, want 2: the one that was cut off is not used again", n)
	}
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		allows := func(want bool) {
			t.Helper()
			if got := b.allows(); got != want {
				t.Errorf("after %v, allows() = %t, want %t", time.Since(b.failedAt), got, want)
			}
		}
		start := time.Now()
		allows(true)
		for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second} {
			began := time.Now()
			time.Sleep(time.Millisecond)
			b.failed(began)
			b.failed(began) // of the same moment: one failure
			b.failed(start)
			allows(false)
			time.Sleep(wait - time.Millisecond)
			allows(false)
			time.Sleep(time.Millisecond)
			allows(true)
			allows(false) // while the one that was let through is on its way
		}
		// One that never reports does not shut the others out.
		time.Sleep(storeTimeout)
		allows(true)
		b.succeeded()
		allows(true)
		allows(true)
		b.failed(time.Now())
		time.Sleep(time.Second)
		allows(true)
	})
}

func TestBreakerSuspects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		early := time.Now()
		if b.suspects(early) {
			t.Error("a connection is suspect before anything has happened")
		}
		time.Sleep(time.Second)
		b.lost()
		time.Sleep(time.Second)
		if !b.suspects(early) || b.suspects(time.Now()) {
			t.Errorf("suspects(before the loss) = %t, suspects(after it) = %t, want true, false", b.suspects(early), b.suspects(time.Now()))
		}
		if !b.allows() {
			t.Error("a lost connection alone keeps calls out")
		}
	})
}

// Waiting long for a free connection says nothing about Redis.
func TestRedisStoreBlamesOnlyRedis(t *testing.T) {
	s := openRedis(t, "redis://127.0.0.1:1", usualLimits)
	ctx, cancel := context.WithTimeout(t.Context(), s.timeout/4)
	defer cancel()
	s.failed(ctx, time.Now())
	if !s.breaker.allows() {
		t.Error("a call with little time left keeps others out")
	}
	ctx, cancel = context.WithTimeout(t.Context(), s.timeout)
	defer cancel()
	s.failed(ctx, time.Now().Add(-time.Millisecond))
	if s.breaker.allows() {
		t.Error("a call that had its time does not keep others out")
	}
}

func TestParseRedisURL(t *testing.T) {
	for _, tt := range []struct {
		in                               string
		network, address, user, password string
		database                         int
		serverName                       string // of TLS; "" = no TLS
	}{
		{"redis://localhost", "tcp", "localhost:6379", "", "", 0, ""},
		{"redis://", "tcp", "localhost:6379", "", "", 0, ""},
		{"redis://redis:6380/", "tcp", "redis:6380", "", "", 0, ""},
		{"redis://redis/2", "tcp", "redis:6379", "", "", 2, ""},
		{"redis://redis/2/", "tcp", "redis:6379", "", "", 2, ""},
		{"redis://redis?db=3", "tcp", "redis:6379", "", "", 3, ""},
		{"redis://redis/?db=3", "tcp", "redis:6379", "", "", 3, ""},
		{"redis://[::1]:7000/15", "tcp", "[::1]:7000", "", "", 15, ""},
		{"redis://[::1]", "tcp", "[::1]:6379", "", "", 0, ""},
		{"redis://:p%40ss%2F@h", "tcp", "h:6379", "", "p@ss/", 0, ""},
		{"redis://user:pass@h:1/1", "tcp", "h:1", "user", "pass", 1, ""},
		{"redis://pass@h", "tcp", "h:6379", "", "pass", 0, ""},
		{"redis://user:@h", "tcp", "h:6379", "user", "", 0, ""},
		{"REDIS://h", "tcp", "h:6379", "", "", 0, ""},
		{"rediss://h", "tcp", "h:6379", "", "", 0, "h"},
		{"rediss://:pass@[::1]:7000/1", "tcp", "[::1]:7000", "", "pass", 1, "::1"},
		{"unix:///run/redis.sock", "unix", "/run/redis.sock", "", "", 0, ""},
		{"unix:/run/redis.sock", "unix", "/run/redis.sock", "", "", 0, ""},
		{"unix:///run/redis.sock?db=1", "unix", "/run/redis.sock", "", "", 1, ""},
		{"unix://user:pass@/run/a%20b.sock", "unix", "/run/a b.sock", "user", "pass", 0, ""},
	} {
		a, err := parseRedisURL(tt.in)
		if err != nil {
			t.Errorf("parseRedisURL(%q) = %v, want nil", tt.in, err)
			continue
		}
		serverName := ""
		if a.tls != nil {
			serverName = a.tls.ServerName
		}
		if a.network != tt.network || a.address != tt.address || a.user != tt.user || string(a.password) != tt.password ||
			a.database != tt.database || serverName != tt.serverName {
			t.Errorf("parseRedisURL(%q) = %s %s, user %q, password %q, database %d, TLS name %q; want %+v",
				tt.in, a.network, a.address, a.user, string(a.password), a.database, serverName, tt)
		}
	}
}

// hiddenURLs are wrong; none of their errors may show the word hidden.
var hiddenURLs = []struct{ in, want string }{
	{"", "scheme"},
	{"hidden", "scheme"},
	{"hidden:6379", "not a valid address"},
	{"hidden:hidden", "not a valid address"},
	{"http://:hidden@h", "scheme"},
	{"hidden://h", "scheme"},
	{"redis:hidden", "not a valid address"},
	{"redis://:hid/den@h", "not a valid address"},
	{"redis://:12/hidden@h", "database"},
	{"redis://:hidden#x@h", "not a valid address"},
	{"redis://u:12?hidden@h", "question mark"},
	{"redis://:hidden@h:port", "not a valid address"},
	{"redis://:hidden@h:0", "port"},
	{"redis://:hidden@h:65536", "port"},
	{"redis://:hidden@h/x", "database"},
	{"redis://:hidden@h/-1", "database"},
	{"redis://:hidden@h/99999999999", "database"},
	{"redis://:hidden@h/1/2", "database"},
	{"redis://:hidden@h/1?db=2", "twice"},
	{"redis://:hidden@h?db=", "database"},
	{"redis://:hidden@h?db=1&db=2", "question mark"},
	{"redis://:hidden@h?timeout=1", "question mark"},
	{"redis://:hidden@h?db=%zz", "question mark"},
	{"redis://:hidden%zz@h", "not a valid address"},
	{"unix://:hidden@", "path"},
	{"unix://:hidden@/", "path"},
	{"unix://hidden/redis.sock", "path"},
	{"unix:///redis.sock?db=hidden", "database"},
}

func TestParseRedisURLErrors(t *testing.T) {
	for _, tt := range hiddenURLs {
		_, err := parseRedisURL(tt.in)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("parseRedisURL(%q) = %v, want an error about %q that does not quote it", tt.in, err, tt.want)
		}
	}
}

func FuzzParseRedisURL(f *testing.F) {
	texts := make(map[string]bool)
	for _, tt := range hiddenURLs {
		f.Add(tt.in)
		_, err := parseRedisURL(tt.in)
		texts[err.Error()] = true
	}
	f.Add("rediss://user:p%2Fss@[::1]:7000/15")
	f.Add("unix://user:pass@/run/redis.sock?db=1")
	f.Fuzz(func(t *testing.T, in string) {
		a, err := parseRedisURL(in)
		if err != nil {
			if !texts[err.Error()] {
				t.Errorf("parseRedisURL(%q) = %v, a text of its own", in, err)
			}
			return
		}
		switch a.network {
		case "tcp":
			if _, port, err := net.SplitHostPort(a.address); err != nil || port == "0" {
				t.Errorf("parseRedisURL(%q) gives address %q: %v", in, a.address, err)
			}
		case "unix":
			if !strings.HasPrefix(a.address, "/") || a.tls != nil {
				t.Errorf("parseRedisURL(%q) gives socket %q, TLS %t", in, a.address, a.tls != nil)
			}
		default:
			t.Errorf("parseRedisURL(%q) gives network %q", in, a.network)
		}
		if a.database < 0 {
			t.Errorf("parseRedisURL(%q) gives database %d", in, a.database)
		}
	})
}
