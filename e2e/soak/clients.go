package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A call is one request to the gateway.
type call struct {
	dialect string // of dialects; "" = chat
	model   string
	text    string
	stream  bool
	session string
}

var dialects = []string{"", "messages", "responses", "gemini"}

func (c call) request(ctx context.Context, addr string) *http.Request {
	model := cmp.Or(c.model, "m")
	path, body := "/v1/chat/completions", fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"user","content":%q}]}`, model, c.stream, c.text)
	switch c.dialect {
	case "messages":
		path, body = "/v1/messages", fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":9,"messages":[{"role":"user","content":%q}]}`, model, c.stream, c.text)
	case "responses":
		path, body = "/v1/responses", fmt.Sprintf(`{"model":%q,"stream":%t,"input":%q}`, model, c.stream, c.text)
	case "gemini":
		path, body = "/v1beta/models/"+model+":generateContent", fmt.Sprintf(`{"contents":[{"role":"user","parts":[{"text":%q}]}]}`, c.text)
		if c.stream {
			path = "/v1beta/models/" + model + ":streamGenerateContent?alt=sse"
		}
	}
	r, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	r.Header.Set("Authorization", "Bearer "+clientKey)
	r.Header.Set("Content-Type", "application/json")
	if c.session != "" {
		r.Header.Set("X-Session-Id", c.session)
	}
	return r
}

// ends is what a whole stream of a dialect contains.
var ends = map[string]string{"": "[DONE]", "messages": "message_stop", "responses": "response.completed", "gemini": `"finishReason":"STOP"`}

// do makes a call whose answer must be whole and its own.
func (g *gateway) do(c call) error {
	res, err := g.client.Do(c.request(context.Background(), g.addr))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch got := string(body); {
	case err != nil:
		return err
	case res.StatusCode != 200:
		return fmt.Errorf("%+v: status %d %s", c, res.StatusCode, got)
	case !strings.Contains(got, "re: "+c.text+`"`), c.stream && !strings.Contains(got, ends[c.dialect]):
		return fmt.Errorf("%+v was answered %.500q", c, got)
	}
	return nil
}

// each does n things at once and returns the first error of any.
func each(n int, do func(i int) error) error {
	var wg sync.WaitGroup
	var first atomic.Pointer[error]
	for i := range n {
		wg.Go(func() {
			if err := do(i); err != nil {
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	wg.Wait()
	if err := first.Load(); err != nil {
		return *err
	}
	return nil
}

// warmUp makes the gateway hold what any use makes it hold.
func (g *gateway) warmUp() {
	each(200, func(i int) error {
		return g.do(call{dialect: dialects[i%4], text: "warm", stream: i%2 == 0, session: "warm"})
	})
	g.client.CloseIdleConnections()
	time.Sleep(200 * time.Millisecond)
}

// streams opens n streams at once, each of two seconds.
func (g *gateway) streams(n int) error {
	began := time.Now()
	err := each(n, func(i int) error {
		return g.do(call{dialect: dialects[i%4], model: "slow", text: fmt.Sprintf("stream-%d-", i), stream: true})
	})
	g.client.CloseIdleConnections()
	if took := time.Since(began); err == nil && took > time.Duration(30+n/50)*time.Second {
		return fmt.Errorf("%d streams took %v", n, took)
	}
	return err
}

// crowd holds connections that ask nothing and calls that are not answered, and
// tries whether others are served beside them.
func (g *gateway) crowd(idle, hanging int) error {
	ctx, leave := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer func() {
		leave()
		wg.Wait()
	}()
	for range idle {
		conn, err := net.Dial("tcp", g.addr)
		if err != nil {
			return err
		}
		defer conn.Close()
	}
	for i := range hanging {
		wg.Go(func() {
			if res, err := g.client.Do((call{dialect: dialects[i%4], model: "hang", text: "x", stream: i%2 == 0}).request(ctx, g.addr)); err == nil {
				res.Body.Close()
			}
		})
	}
	for range 1000 {
		if g.up.open.Load() >= int64(hanging) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := g.up.open.Load(); n < int64(hanging) {
		return fmt.Errorf("%d calls reached the upstream, want %d", n, hanging)
	}
	var times []time.Duration
	for i := range 200 {
		began := time.Now()
		if err := g.do(call{text: fmt.Sprint("beside-", i)}); err != nil {
			return err
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	fmt.Printf("     beside them a call takes %v, the slowest of 200 %v\n", times[100], times[199])
	if times[100] > 500*time.Millisecond {
		return fmt.Errorf("beside them a call takes %v", times[100])
	}
	return nil
}

// aborts leaves n requests at random moments: before an answer, and within one.
func (g *gateway) aborts(n int) error {
	var next atomic.Int64
	return each(100, func(worker int) error {
		for i := next.Add(1); i <= int64(n); i = next.Add(1) {
			c := call{dialect: dialects[i%4], model: []string{"hang", "slow"}[i/4%2], text: fmt.Sprint("abort-", i), stream: i%3 > 0, session: []string{"", "aborted"}[i/8%2]}
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(60))*time.Millisecond)
			if res, err := g.client.Do(c.request(ctx, g.addr)); err == nil {
				io.CopyN(io.Discard, res.Body, int64(rand.IntN(500)))
				res.Body.Close()
			}
			cancel()
		}
		return nil
	})
}

// soak uses the gateway as many clients do, for as long as d, and holds its memory
// against what it was at the end of the first third.
func (g *gateway) soak(d time.Duration) error {
	end := time.Now().Add(d)
	var calls atomic.Int64
	var sizes []int
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for tick := time.NewTicker(max(d/90, 100*time.Millisecond)); ; {
			select {
			case <-stop:
				return
			case <-tick.C:
				sizes = append(sizes, g.usage().megabytes)
			}
		}
	}()
	err := each(16, func(worker int) error {
		for i := 0; time.Now().Before(end); i++ {
			c := call{dialect: dialects[i%4], text: fmt.Sprintf("soak-%d-%d-", worker, i), stream: i%3 > 0}
			if i%2 == 0 {
				c.session = fmt.Sprintf("soak-%d-%d", worker, i/40%2000)
			}
			if err := g.do(c); err != nil {
				return err
			}
			calls.Add(1)
		}
		return nil
	})
	close(stop)
	<-watched
	if err != nil {
		return err
	}
	third := len(sizes) / 3
	early, late := median(sizes[third:2*third]), median(sizes[2*third:])
	fmt.Printf("     %d calls; %d MiB in the second third, %d MiB in the last\n", calls.Load(), early, late)
	if late > early+early/4+16 {
		return fmt.Errorf("memory grows: %v MiB", sizes)
	}
	return nil
}

func median(list []int) int {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// dripHeaders opens connections whose head comes byte by byte. What it returns
// waits until all of them are cut, which must be within 30 seconds of their begin.
func (g *gateway) dripHeaders(n int) func() error {
	const limit = 30 * time.Second
	began := time.Now()
	done := make(chan error, n)
	for range n {
		go func() {
			conn, err := net.Dial("tcp", g.addr)
			if err != nil {
				done <- err
				return
			}
			defer conn.Close()
			cut := make(chan struct{})
			go func() {
				bufio.NewReader(conn).WriteTo(io.Discard)
				close(cut)
			}()
			fmt.Fprint(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ")
			for {
				select {
				case <-cut:
					done <- nil
					return
				case <-time.After(500 * time.Millisecond):
					fmt.Fprint(conn, "x")
				}
				if time.Since(began) > limit {
					done <- errors.New("a head that drips was not cut within 30 s")
					return
				}
			}
		}()
	}
	return func() error {
		for range n {
			if err := <-done; err != nil {
				return err
			}
		}
		return nil
	}
}

// killing kills one of two gateways on one Redis again and again, while turns are
// acknowledged by both, and looks for those afterwards.
func (r *run) killing(store string) error {
	survivor, err := r.startGateway("127.0.0.1:0", "REDIS_URL="+store, "SESSION_MAX_TURNS=100000")
	if err != nil {
		return err
	}
	defer survivor.kill()
	const sessions = 6
	told := make([][]string, sessions)
	r.step(fmt.Sprintf("kill -9, %d times", r.kills), func() error {
		for round := range r.kills {
			victim, err := r.startGateway("127.0.0.1:0", "REDIS_URL="+store, "SESSION_MAX_TURNS=100000")
			if err != nil {
				return err
			}
			var turns atomic.Int64
			var killed atomic.Bool
			err = each(sessions, func(s int) error {
				for n := 0; ; n++ {
					g := []*gateway{victim, survivor}[n%2]
					c := call{text: fmt.Sprintf("turn-%d-%d-%d", s, round, n), stream: n%3 > 0, session: fmt.Sprintf("kill-%d", s)}
					err := g.do(c)
					switch {
					case err == nil:
						told[s] = append(told[s], c.text)
					case g == survivor:
						return err
					}
					if killed.Load() {
						return nil
					}
					if turns.Add(1) == 60 {
						victim.kill()
						killed.Store(true)
					}
				}
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	r.step("everything acknowledged is there", func() error {
		n := 0
		for s, turns := range told {
			if err := survivor.holds(fmt.Sprintf("kill-%d", s), turns); err != nil {
				return err
			}
			n += len(turns)
		}
		fmt.Printf("     %d turns\n", n)
		return nil
	})
	return nil
}

// holds says whether a session has the turns once each, in order, each with its
// own answer. Turns that were not acknowledged may stand between them, whole.
func (g *gateway) holds(session string, turns []string) error {
	req, err := http.NewRequest("GET", "http://"+g.addr+"/context/"+session, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+clientKey)
	res, err := g.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var view struct {
		Messages []struct{ Role, Content string }
	}
	if err := json.NewDecoder(res.Body).Decode(&view); err != nil {
		return err
	}
	count := map[string]int{}
	next := 0
	for i := 0; i < len(view.Messages); i += 2 {
		question := view.Messages[i].Content
		if i+1 == len(view.Messages) || view.Messages[i].Role != "user" || view.Messages[i+1].Content != "re: "+question {
			return fmt.Errorf("%s: half a turn at message %d: %q", session, i, question)
		}
		if count[question]++; count[question] > 1 {
			return fmt.Errorf("%s: %s is there twice", session, question)
		}
		if next < len(turns) && turns[next] == question {
			next++
		}
	}
	if next < len(turns) {
		return fmt.Errorf("%s: %s is lost, or not in its place", session, turns[next])
	}
	return nil
}
