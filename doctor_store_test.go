package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
)

// storeChecks are the findings about a store alone.
func storeChecks(t *testing.T, rawURL string) *doctor {
	t.Helper()
	d := doctorFor(t, "REDIS_URL", rawURL)
	for _, c := range doctorChecks[len(doctorChecks)-3:] {
		f := c.run(d, t.Context())
		f.Check = c.name
		d.Checks = append(d.Checks, f)
	}
	return d
}

// forbid makes a user of Redis who may not run some commands.
func forbid(commands ...string) []string {
	return append([]string{"--user", "app", "on", ">CANARY-password", "~*", "+@all"}, commands...)
}

func TestDoctorRedis(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string // of redis-server
		user string   // in REDIS_URL
		want map[string]string
	}{
		{"nothing kept", nil, "", map[string]string{"store": "ok: a session was written, read and deleted", "persistence": "warn: a restart of Redis loses every session", "eviction": "ok: noeviction"}},
		{"append-only", []string{"--appendonly", "yes"}, "", map[string]string{"persistence": "ok: the last second"}},
		{"append-only, always", []string{"--appendonly", "yes", "--appendfsync", "always"}, "", map[string]string{"persistence": "ok: before each answer"}},
		{"append-only, never flushed", []string{"--appendonly", "yes", "--appendfsync", "no"}, "", map[string]string{"persistence": "warn: appendfsync everysec"}},
		{"snapshots", []string{"--save", "3600 1"}, "", map[string]string{"persistence": "warn: snapshots alone (save 3600 1)"}},
		{"evicting", []string{"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"}, "", map[string]string{"store": "ok: round trip", "eviction": `warn: allkeys-lru with a limit of 100 MiB`}},
		{"evicting without a limit", []string{"--maxmemory-policy", "volatile-lru"}, "", map[string]string{"eviction": "ok: without a memory limit"}},
		{"full", []string{"--maxmemory", "1"}, "", map[string]string{"store": "fail: raise maxmemory", "eviction": "warn: are in use"}},
		{"CONFIG renamed", []string{"--rename-command", "CONFIG", "", "--appendonly", "yes"}, "", map[string]string{"persistence": "ok: append-only file", "eviction": "ok: noeviction"}},
		{"CONFIG renamed, no file", []string{"--rename-command", "CONFIG", ""}, "", map[string]string{"persistence": "warn: since Redis refuses CONFIG", "eviction": "ok: noeviction"}},
		{"INFO and CONFIG forbidden", forbid("-config", "-info"), "app:CANARY-password@", map[string]string{
			"store": "ok: round trip", "persistence": "warn: not known: Redis refuses INFO and CONFIG", "eviction": `warn: make sure of "maxmemory-policy noeviction"`,
		}},
		{"scripts forbidden", forbid("-@scripting"), "app:CANARY-password@", map[string]string{"store": "fail: every command that the message names"}},
		{"password wanted", []string{"--requirepass", "secret"}, "", map[string]string{"store": "fail: put the password into REDIS_URL", "persistence": "warn: Redis refuses"}},
		{"password wrong", []string{"--requirepass", "secret"}, "app:CANARY-password@", map[string]string{"store": "fail: correct user and password", "persistence": "skip: does not answer"}},
		{"replica", []string{"--replicaof", "127.0.0.1 1"}, "", map[string]string{"store": "fail: set REDIS_URL to the primary"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startRedis(t, tt.args...)
			if r == nil {
				return
			}
			d := storeChecks(t, "redis://"+tt.user+r.addr)
			d.expect(t, tt.want)
			if all := fmt.Sprint(d.Checks); strings.Contains(all, "CANARY") {
				t.Errorf("the password is shown: %s", all)
			}
		})
	}
}

// The doctor leaves nothing behind in Redis, and a broken one fails the run.
func TestDoctorRedisRun(t *testing.T) {
	r := startRedis(t)
	if r == nil {
		return
	}
	up := httptest.NewServer(patient(nil))
	defer up.Close()
	environ := []string{"A4F_BASE_URL=" + up.URL, "A4F_API_KEY=some-upstream-key", "REDIS_URL=" + r.url()}
	code, stdout, stderr := runGateway(t, environ, "-doctor")
	if code != 0 || !strings.Contains(stdout, "! persistence  ") || !strings.Contains(stdout, "✓ eviction  ") {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if n := r.do("DBSIZE"); n != int64(0) {
		t.Errorf("%v keys are left", n)
	}
	r.kill()
	code, stdout, stderr = runGateway(t, environ, "-doctor")
	if code != 1 || !strings.Contains(stdout, "✗ store  ") || !strings.Contains(stdout, "start Redis, or correct") || !strings.Contains(stderr, "broken: store\n") {
		t.Errorf("without Redis: exit code %d\n%s%s", code, stdout, stderr)
	}
}

// A store may lie.
func TestTryStore(t *testing.T) {
	good := newMemoryStore(1<<20, usualLimits)
	defer good.Close()
	if err := tryStore(t.Context(), good); err != nil {
		t.Error(err)
	}
	if err := tryStore(t.Context(), forgetful{good}); err == nil || !strings.Contains(err.Error(), "not what was written") {
		t.Errorf("a store that loses turns: %v", err)
	}
}

// forgetful loses the turns of every session.
type forgetful struct{ Store }

func (s forgetful) History(ctx context.Context, k sessionKey, pick threadPick) (*sessionRecord, error) {
	record, err := s.Store.History(ctx, k, pick)
	if err == nil {
		record.Threads[0].Turns = nil
	}
	return record, err
}

func TestRedisAdvice(t *testing.T) {
	for _, tt := range []struct{ said, want string }{
		{"dial tcp 127.0.0.1:1: connect: connection refused", "start Redis"},
		{"MISCONF Redis is configured to save RDB snapshots", "disk"},
		{"LOADING Redis is loading the dataset in memory", "wait"},
		{"tls: failed to verify certificate", "SSL_CERT_FILE"},
		{"tls: first record does not look like a TLS handshake", "redis://"},
		{"connection lost: EOF", "rediss://"},
	} {
		if got := redisAdvice(errors.New(tt.said)); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s", tt.said, got)
		}
	}
}

// What Redis says of its disk, which a healthy one does not say.
func TestDoctorRedisDisk(t *testing.T) {
	for _, tt := range []struct{ info, config, want string }{
		{"aof_enabled:1\r\naof_last_write_status:err\r\n", "", "fail: append-only file"},
		{"aof_enabled:0\r\nrdb_last_bgsave_status:err\r\n", "3600 1", "fail: refuses writes for that"},
		{"aof_enabled:0\r\nrdb_last_bgsave_status:err\r\n", "", "warn: none"},
		{"evicted_keys:7\r\nmaxmemory:1048576\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n", "", "ok: append-only"},
	} {
		rawURL, _ := fakeRedis(t, answerFacts(tt.info, tt.config))
		d := doctorFor(t, "REDIS_URL", rawURL)
		f := d.checkPersistence(t.Context())
		f.Check = "persistence"
		d.Checks = append(d.Checks, f)
		d.expect(t, map[string]string{"persistence": tt.want})
		if f := d.checkEviction(t.Context()); strings.Contains(tt.info, "evicted") && !strings.Contains(f.Found, "(7 keys so far)") {
			t.Errorf("eviction: %+v", f)
		}
	}
}

// answerFacts is a Redis that knows INFO and CONFIG GET save.
func answerFacts(info, save string) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		for in := bufio.NewReader(c); ; {
			command, err := readCommand(in)
			switch {
			case err != nil:
				return
			case command[0] == "INFO":
				fmt.Fprintf(c, "$%d\r\n%s\r\n", len(info), info)
			case command[len(command)-1] == "save":
				fmt.Fprintf(c, "*2\r\n$4\r\nsave\r\n$%d\r\n%s\r\n", len(save), save)
			default:
				fmt.Fprint(c, "*0\r\n")
			}
		}
	}
}
