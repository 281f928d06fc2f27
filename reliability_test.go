package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"
)

// What sessions promise while the store behind them fails, and when the gateway
// itself is killed: with a real Redis, under load, through real sockets.

const (
	storePatience = 5 * time.Second  // no call takes longer because of the store
	backWithin    = 12 * time.Second // all works again
)

// turnCaller is a client of one session that sends turn after turn, and knows
// what it was told of each.
type turnCaller struct {
	g       *gateway
	session string
	managed bool // it sends its history itself

	history []string // messages, of a managed conversation
	turns   int
	told    map[string]string // question -> what became of it: "stored", "deferred", "refused", "unknown"
	slowest time.Duration
}

func newTurnCaller(g *gateway, session string, managed bool) *turnCaller {
	return &turnCaller{g: g, session: session, managed: managed, told: map[string]string{}}
}

// turn sends the next turn. What comes must be a whole answer, which says what
// became of the turn, or an honest 503.
func (c *turnCaller) turn(t *testing.T) string {
	question := fmt.Sprintf("%s-%d", c.session, c.turns)
	stream := c.turns%2 == 0
	c.turns++
	messages := append(slices.Clone(c.history), userMsg(question))
	body := fmt.Sprintf(`{"stream":%t,"messages":%s}`, stream, arrayOf(messages...))
	began := time.Now()
	res, err := http.DefaultTransport.RoundTrip(c.g.request("POST", "/v1/chat/completions", body, "X-Session-Id: "+c.session))
	if err != nil {
		t.Errorf("%s: %v", question, err)
		return ""
	}
	got, err := io.ReadAll(res.Body)
	res.Body.Close()
	c.slowest = max(c.slowest, time.Since(began))
	outcome := "stored"
	switch said := string(got); {
	case err != nil:
		t.Errorf("%s: %v after %s", question, err, said)
	case res.StatusCode == 503:
		outcome = "refused"
		if !strings.Contains(said, `"code":"store_unavailable"`) || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: 503 %v %s", question, res.Header, said)
		}
		if c.managed {
			t.Errorf("%s is managed by its client, and was refused: %s", question, said)
		}
	case res.StatusCode != 200 || stream && !strings.HasSuffix(said, doneEvent):
		t.Errorf("%s: %d %s", question, res.StatusCode, said)
	case res.Header.Get("X-Session-Store") != "" || strings.Contains(said, ": session store "):
		outcome = "deferred"
	}
	if outcome != "refused" && c.managed {
		c.history = append(messages, assistantMsg("re: "+question))
	}
	c.told[question] = outcome
	return outcome
}

// check compares what a session holds with what its client was told: each turn
// that was acknowledged once, with its own answer, in order; none that was
// refused.
func (c *turnCaller) check(t *testing.T, g *gateway) {
	t.Helper()
	var messages []struct{ Role, Content string }
	if err := json.Unmarshal(g.context(t, c.session, "").Messages, &messages); err != nil {
		t.Fatal(err)
	}
	count, last := map[string]int{}, -1
	for i := 0; i < len(messages); i += 2 {
		question := messages[i].Content
		n := -1
		fmt.Sscanf(strings.TrimPrefix(question, c.session+"-"), "%d", &n)
		if messages[i].Role != "user" || i+1 == len(messages) || messages[i+1].Role != "assistant" || messages[i+1].Content != "re: "+question || n <= last {
			t.Fatalf("%s holds, at message %d: %v", c.session, i, messages)
		}
		last = n
		count[question]++
	}
	for question, outcome := range c.told {
		want := 1
		if outcome == "refused" {
			want = 0
		}
		if count[question] != want {
			t.Errorf("%s was %s and is there %d times", question, outcome, count[question])
		}
	}
}

// storeFaults are the ways in which a Redis fails.
var storeFaults = []struct {
	name     string
	args     []string // of redis-server
	readable bool     // what it holds can still be read
	fail     func(r *redisServer) (mend func())
}{
	{"hangs", nil, false, func(r *redisServer) func() { r.pause(); return r.resume }},
	{"killed", []string{"--appendonly", "yes", "--appendfsync", "always"}, false, func(r *redisServer) func() { r.kill(); return r.restart }},
	{"read-only", nil, true, func(r *redisServer) func() {
		r.do("REPLICAOF", "127.0.0.1", "1")
		return func() { r.do("REPLICAOF", "NO", "ONE") }
	}},
	{"full", nil, true, func(r *redisServer) func() {
		r.do("CONFIG", "SET", "maxmemory", "1")
		return func() { r.do("CONFIG", "SET", "maxmemory", "0") }
	}},
	{"refuses connections", nil, false, func(r *redisServer) func() {
		only, err := redis.Dial("tcp", r.addr)
		if err != nil {
			r.t.Fatal(err)
		}
		tell := func(command string, args ...any) {
			if _, err := only.Do(command, args...); err != nil {
				r.t.Errorf("%s: %v", command, err)
			}
		}
		tell("CONFIG", "SET", "maxclients", 1)
		tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		return func() {
			tell("CONFIG", "SET", "maxclients", 1000)
			only.Close()
		}
	}},
}

// TestStoreFails lets a Redis fail in every way under load. Calls without a
// session notice nothing, none takes longer than the store's time-out allows, no
// turn is lost or kept silently, and all works again soon after.
func TestStoreFails(t *testing.T) {
	for _, tt := range storeFaults {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t, tt.args...)
			if server == nil {
				return
			}
			g := newGateway(t, talkUpstream, func(c *config) { c.RedisURL = secret(server.url()); c.SessionMaxTurns = 10000 })
			var callers []*turnCaller
			for i := range 6 {
				callers = append(callers, newTurnCaller(g, fmt.Sprintf("s%d", i), i%2 == 0))
				callers[i].turn(t)
			}
			const readOnly = "read-only"
			newTurnCaller(g, readOnly, false).turn(t)
			mend := tt.fail(server)
			refused, deferred, without := loadDuring(t, g, callers)
			if refused == 0 || deferred == 0 {
				t.Errorf("%d turns were refused and %d deferred: the store did not fail, or nothing says so", refused, deferred)
			}
			if res := g.do("GET", "/context/"+readOnly, ""); tt.readable != (res.StatusCode == 200) {
				t.Errorf("reading a session: %d", res.StatusCode)
			}
			if without == 0 {
				t.Error("nothing was asked without a session")
			}
			mend()
			mended := time.Now()
			for _, c := range callers {
				for c.turn(t) != "stored" {
					if time.Since(mended) > backWithin {
						t.Fatalf("%s: sessions do not work %v after the store is back", c.session, backWithin)
					}
					time.Sleep(50 * time.Millisecond)
				}
				if c.slowest > storePatience {
					t.Errorf("%s: a turn took %v", c.session, c.slowest)
				}
			}
			eventually(t, "the end of the queue", func() bool { return g.server.sessions.left() == 0 })
			for _, c := range callers {
				c.check(t, g)
			}
		})
	}
}

// loadDuring lets the callers and others without a session go on for a while.
func loadDuring(t *testing.T, g *gateway, callers []*turnCaller) (refused, deferred, without int64) {
	var stop atomic.Bool
	var r, d, w atomic.Int64
	var wg sync.WaitGroup
	for _, c := range callers {
		wg.Go(func() {
			for !stop.Load() {
				switch c.turn(t) {
				case "refused":
					r.Add(1)
				case "deferred":
					d.Add(1)
				}
				time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			}
		})
	}
	for _, c := range vendorClients {
		wg.Go(func() {
			for !stop.Load() {
				began := time.Now()
				res, err := http.DefaultTransport.RoundTrip(g.request("POST", c.path, c.body))
				if err != nil {
					t.Error(err)
					return
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != 200 || time.Since(began) > storePatience {
					t.Errorf("%s without a session: after %v %d %s", c.name, time.Since(began), res.StatusCode, body)
				}
				w.Add(1)
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	time.Sleep(3 * time.Second)
	stop.Store(true)
	wg.Wait()
	return r.Load(), d.Load(), w.Load()
}

// TestStoreIsLeftAlone: while a Redis hangs, a burst of calls asks it a few times,
// and not once for each of them.
func TestStoreIsLeftAlone(t *testing.T) {
	server := startRedis(t)
	if server == nil {
		return
	}
	t.Parallel()
	g := newGateway(t, talkUpstream, func(c *config) { c.RedisURL = secret(server.url()) })
	newTurnCaller(g, "warm", false).turn(t)
	server.pause()
	wantUnavailable(t, g, false, "X-Session-Id: first") // waits for its time-out, and tells the others
	began := time.Now()
	const calls = 300
	for range calls {
		wantUnavailable(t, g, false, "X-Session-Id: s")
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("%d calls to a store that is known to hang took %v", calls, took)
	}
	server.resume()
	stats := fmt.Sprintf("%s", server.do("INFO", "commandstats"))
	for _, command := range []string{"evalsha", "eval"} {
		_, rest, _ := strings.Cut(stats, "cmdstat_"+command+":calls=")
		n := 0
		fmt.Sscanf(rest, "%d", &n)
		if n > 20 {
			t.Errorf("Redis was asked to %s %d times for %d calls", command, n, calls)
		}
	}
}

// A gatewayProcess is the gateway as a process of its own.
type gatewayProcess struct {
	gateway
	cmd *exec.Cmd
	err *output
}

// startGatewayProcess starts a gateway process with the usual keys.
func startGatewayProcess(t *testing.T, environ ...string) *gatewayProcess {
	t.Helper()
	b := &gatewayProcess{cmd: exec.Command(os.Args[0]), err: &output{}}
	b.cmd.Dir = t.TempDir()
	b.cmd.Env = append(os.Environ(), append([]string{"TEST_BINARY_IS_GATEWAY=1", "LISTEN_ADDR=127.0.0.1:0", "A4F_API_KEY=" + testUpstream,
		"APIPROXY_API_KEYS=tester:" + testKey + ",other:" + otherKey}, environ...)...)
	b.cmd.Stderr = b.err
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.kill)
	b.t, b.URL = t, "http://"+b.err.waitFor(t, `listening"?[, ]+"?addr"?[:=]"?([^", ]+)`)
	return b
}

// kill is kill -9.
func (b *gatewayProcess) kill() {
	b.cmd.Process.Kill()
	b.cmd.Wait()
}

// TestKilledGateway: whatever was acknowledged before a kill -9 is there after it.
// A turn under way may be there, and then whole.
func TestKilledGateway(t *testing.T) {
	server := startRedis(t)
	if server == nil {
		return
	}
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(talkUpstream))
	defer up.Close()
	environ := []string{"A4F_BASE_URL=" + up.URL, "REDIS_URL=" + server.url(), "SESSION_MAX_TURNS=10000"}
	acknowledged := make([][]string, 4)
	for round := range 3 {
		b := startGatewayProcess(t, environ...)
		var wg sync.WaitGroup
		var total atomic.Int64
		for i := range acknowledged {
			wg.Go(func() {
				for n := 0; ; n++ {
					question := fmt.Sprintf("%d-%d-%d", i, round, n)
					req := b.request("POST", "/v1/chat/completions", fmt.Sprintf(`{"stream":%t,"messages":%s}`, n%2 == 0, arrayOf(userMsg(question))), fmt.Sprintf("X-Session-Id: s%d", i))
					if !acknowledges(req) {
						return
					}
					acknowledged[i] = append(acknowledged[i], question)
					total.Add(1)
				}
			})
		}
		eventually(t, "twenty turns", func() bool { return total.Load() >= 20 })
		b.kill()
		wg.Wait()
	}
	b := startGatewayProcess(t, environ...)
	for i, questions := range acknowledged {
		var messages []struct{ Role, Content string }
		if err := json.Unmarshal(b.context(t, fmt.Sprintf("s%d", i), "").Messages, &messages); err != nil {
			t.Fatal(err)
		}
		at := 0
		for m := 0; m < len(messages); m += 2 {
			question := messages[m].Content
			if m+1 == len(messages) || messages[m].Role != "user" || messages[m+1].Content != "re: "+question {
				t.Fatalf("session %d holds half a turn: %v", i, messages[m:])
			}
			if at < len(questions) && questions[at] == question {
				at++
			}
		}
		if at != len(questions) {
			t.Errorf("session %d has lost %s of %d acknowledged turns", i, questions[at], len(questions))
		}
	}
}

// acknowledges says whether a client gets the whole of its answer: a complete body,
// or [DONE].
func acknowledges(req *http.Request) bool {
	res, err := fresh.Transport.RoundTrip(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		return bytes.Contains(body, []byte("[DONE]"))
	}
	return err == nil && res.StatusCode == 200
}

// TestTwoGateways: on one Redis they share sessions, responses and the model list.
func TestTwoGateways(t *testing.T) {
	server := startRedis(t)
	if server == nil {
		return
	}
	t.Parallel()
	var lists atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/models") {
			lists.Add(1)
			echoPath(w, r)
			return
		}
		talkUpstream(w, r)
	}))
	defer up.Close()
	environ := []string{"A4F_BASE_URL=" + up.URL, "REDIS_URL=" + server.url()}
	a, b := startGatewayProcess(t, environ...), startGatewayProcess(t, environ...)

	for i, g := range []*gatewayProcess{a, b, a, b} {
		if res, body := g.chat(`{"messages":`+arrayOf(userMsg(fmt.Sprint("q", i)))+`}`, "X-Session-Id: shared"); res.StatusCode != 200 || res.Header.Get("X-Session-Messages") != fmt.Sprint(2*i) {
			t.Errorf("turn %d: %d %v %s", i, res.StatusCode, res.Header, body)
		}
	}
	one := a.respond(`{"model":"m","input":"one"}`)
	if two := b.respond(after(idOf(one), `"two"`)); !strings.Contains(two, "re: two") {
		t.Errorf("the second gateway went on with %s", two)
	}
	if res := b.do("GET", "/v1/responses/"+idOf(one), ""); readAll(t, res) != one {
		t.Error("the second gateway reads another response")
	}
	// Five hundred cold callers are one call to the upstream.
	var wg sync.WaitGroup
	for range 500 {
		wg.Go(func() {
			res, err := http.DefaultTransport.RoundTrip(a.request("GET", "/v1/models", ""))
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if body, _ := io.ReadAll(res.Body); res.StatusCode != 200 || !strings.Contains(string(body), "org/name") {
				t.Errorf("%d %s", res.StatusCode, body)
			}
		})
	}
	wg.Wait()
	b.do("GET", "/v1/models", "")
	if n := lists.Load(); n != 1 {
		t.Errorf("the upstream was asked for its models %d times, want once for both", n)
	}
	b.do("DELETE", "/context/shared", "")
	if res := a.do("GET", "/context/shared", ""); res.StatusCode != 404 {
		t.Errorf("a session that the other gateway deleted: %d", res.StatusCode)
	}
}

// TestSameTurnAgain: without more, the same turn sent again is a new turn.
func TestSameTurnAgain(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		g := newGatewayOn(t, open(testLimits), talkUpstream)
		for range 2 {
			g.chat(`{"messages":`+arrayOf(userMsg("q"))+`}`, "X-Session-Id: s", "Idempotency-Key: same")
		}
		want := arrayOf(userMsg("q"), assistantMsg("re: q"), userMsg("q"), assistantMsg("re: q"))
		if got := string(g.context(t, "s", "").Messages); got != want {
			t.Errorf("the session holds %s, want %s", got, want)
		}
	})
}

// TestUpstreamDiesMidTurn: the turn is not written, and its retry leaves it once.
func TestUpstreamDiesMidTurn(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		var dies atomic.Bool
		g := newGatewayOn(t, open(testLimits), func(w http.ResponseWriter, r *http.Request) {
			if dies.CompareAndSwap(true, false) {
				answerStream(textChunk("half"))(w, r)
				panic(http.ErrAbortHandler)
			}
			talkUpstream(w, r)
		})
		var want []string
		for i := range 3 {
			question := userMsg(fmt.Sprint("q", i))
			body := `{"stream":true,"messages":` + arrayOf(question) + `}`
			dies.Store(true)
			if _, got := g.chat(body, "X-Session-Id: s"); strings.Contains(got, "[DONE]") || !strings.Contains(got, `"error"`) {
				t.Errorf("a stream that broke off: %s", got)
			}
			g.chat(body, "X-Session-Id: s")
			want = append(want, question, assistantMsg(fmt.Sprint("re: q", i)))
		}
		if got := string(g.context(t, "s", "").Messages); got != arrayOf(want...) {
			t.Errorf("the session holds %s, want %s", got, arrayOf(want...))
		}
	})
}

// TestNothingStaysForEver: every key that the gateway writes expires.
func TestNothingStaysForEver(t *testing.T) {
	server := startRedis(t)
	if server == nil {
		return
	}
	g := newGateway(t, weatherUpstream, func(c *config) { c.RedisURL = secret(server.url()) })
	for _, s := range speakers {
		g.say(s, true, []string{s.user("weather in Oslo")}, "X-Session-Id: s-"+strings.ReplaceAll(s.name, " ", "-"))
	}
	g.do("GET", "/v1/models", "")
	keys, ok := server.do("KEYS", "*").([]any)
	if !ok || len(keys) < len(speakers) {
		t.Fatalf("the store has the keys %s, so the test proves nothing", keys)
	}
	for _, key := range keys {
		if ttl := server.do("PTTL", key).(int64); ttl <= 0 {
			t.Errorf("%s lives for ever", key)
		}
		if !strings.HasPrefix(string(key.([]byte)), g.server.cfg.StorePrefix) {
			t.Errorf("%s is outside of STORE_PREFIX", key)
		}
	}
}
