package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestNormaliseModels(t *testing.T) {
	const rest = `"object":"model","created":0,"owned_by":"upstream"`
	for _, tt := range []struct{ name, in, want string }{
		{"whole entries keep their bytes",
			`{"object":"list","data":[ {"id" : "a", "object":"model","created":17, "owned_by":"x", "context_length":1e5,"pricing":{"p":"0.10"}} ]}`,
			`{"id" : "a", "object":"model","created":17, "owned_by":"x", "context_length":1e5,"pricing":{"p":"0.10"}}`},
		{"missing members come in, extras keep their bytes",
			`{"data":[{"max_model_len": 32768.0,"id":"org\/a:free","e":"\u00e9", "o":{ "k" : [1] }}]}`,
			`{"id":"org\/a:free",` + rest + `,"max_model_len":32768.0,"e":"\u00e9","o":{ "k" : [1] }}`},
		{"array of strings", `["a","b\/c"]`, `{"id":"a",` + rest + `},{"id":"b/c",` + rest + `}`},
		{"array of objects", `[{"id":"a"}]`, `{"id":"a",` + rest + `}`},
		{"models of strings", `{"models":["a"]}`, `{"id":"a",` + rest + `}`},
		{"models by name", `{"models":[{"name":"llama3:8b","model":"llama3:8b","size":5}]}`,
			`{"id":"llama3:8b",` + rest + `,"name":"llama3:8b","model":"llama3:8b","size":5}`},
		{"models by model", `{"models":[{"model":"m"}]}`, `{"id":"m",` + rest + `,"model":"m"}`},
		{"Gemini's names", `{"models":[{"name":"models/gemini-x","inputTokenLimit":9}]}`,
			`{"id":"gemini-x",` + rest + `,"name":"models/gemini-x","inputTokenLimit":9}`},
		{"an id keeps its prefix", `{"data":[{"id":"models/x"}]}`, `{"id":"models/x",` + rest + `}`},
		{"both lists: data", `{"models":[{"name":"no"}],"data":[{"id":"yes"}]}`, `{"id":"yes",` + rest + `}`},
		{"ids as keys", `{"data":{"a":{"name":"Model A"},"b":{"id":"B"},"c":1}}`,
			`{"id":"a",` + rest + `,"name":"Model A"},{"id":"B",` + rest + `}`},
		{"no usable id", `{"data":[{"id":""},{"id":"  "},{"id":5},{"id":null},{},"",null,7,["x"],{"id":"a\nb"},"` + strings.Repeat("x", 513) + `","ok"]}`,
			`{"id":"ok",` + rest + `}`},
		{"id of a wrong type, name instead", `[{"id":7,"name":"n"}]`, `{"id":"n",` + rest + `,"name":"n"}`},
		{"duplicates: the first", `[{"id":"a","x":1},"a",{"id":"a","x":2},{"id":"\u0061","x":3}]`, `{"id":"a",` + rest + `,"x":1}`},
		{"repeated key: the last", `[{"id":"a","id":"b","object":"model","created":3,"owned_by":"z"}]`,
			`{"id":"b","object":"model","created":3,"owned_by":"z"}`},
		{"key with an escape", `[{"\u0069d":"a"}]`, `{"id":"a",` + rest + `}`},
		{"keys tell case apart", `[{"id":"a","ID":"b"}]`, `{"id":"a",` + rest + `,"ID":"b"}`},
		{"wrong types", `[{"id":"a","object":1,"created":true,"owned_by":null}]`, `{"id":"a",` + rest + `}`},
		{"another kind of object stays", `[{"id":"a","object":"chat.model","created":1,"owned_by":""}]`,
			`{"id":"a","object":"chat.model","created":1,"owned_by":""}`},
		{"created as a float", `[{"id":"a","created":1.7e9}]`, `{"id":"a","object":"model","created":1700000000,"owned_by":"upstream"}`},
		{"created as a string", `[{"id":"a","created":"1700000000"}]`, `{"id":"a","object":"model","created":1700000000,"owned_by":"upstream"}`},
		{"created as a date", `[{"id":"a","created":"2023-11-14T22:13:20Z"}]`, `{"id":"a","object":"model","created":1700000000,"owned_by":"upstream"}`},
		{"created_at", `[{"id":"a","created_at":"2023-11-14T22:13:20Z"}]`,
			`{"id":"a","object":"model","created":1700000000,"owned_by":"upstream","created_at":"2023-11-14T22:13:20Z"}`},
		{"created beyond reason", `[{"id":"a","created":1e300}]`, `{"id":"a",` + rest + `}`},
		{"byte order mark", "\ufeff {\"data\":[\"a\"]}\n", `{"id":"a",` + rest + `}`},
		{"bytes that are not UTF-8", "[{\"id\":\"a\",\"d\":\"caf\xe9\"}]", `{"id":"a",` + rest + `,"d":"caf` + "\uFFFD" + `"}`},
		{"empty", `{"data":[]}`, ``},
		{"empty as null", `{"object":"list","data":null}`, ``},
		{"empty with an empty error", `{"data":[],"error":"","message":"ok"}`, ``},
		{"models beside an error", `{"data":["a"],"error":{"message":"partial"}}`, `{"id":"a",` + rest + `}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			models, err := normaliseModels([]byte(tt.in))
			if err != nil {
				t.Fatalf("normaliseModels(%s): %v", tt.in, err)
			}
			got := string(appendModels(nil, models))
			if want := "[" + tt.want + "]"; got != want {
				t.Errorf("normaliseModels(%s)\n got %s\nwant %s", tt.in, got, want)
			}
		})
	}
}

func TestNormaliseModelsRefuses(t *testing.T) {
	for _, tt := range []struct{ name, in, wantErr string }{
		{"nothing", "", "cut off"},
		{"HTML", "<html><body>sign in</body></html>", `unexpected '<'`},
		{"cut off", `{"data":[{"id":"a"}`, "cut off"},
		{"more behind it", `["a"] ["b"]`, "unexpected data"},
		{"a number", "17", `neither "data" nor "models"`},
		{"another object", `{"result":["a"]}`, `neither "data" nor "models"`},
		{"error object", `{"error":{"message":"no"}}`, "error object"},
		{"error text", `{"error":"no"}`, "error object"},
		{"error by kind", `{"object":"error","message":"no"}`, "error object"},
		{"error in an array", `[{"error":{"code":400}}]`, "error object"},
		{"error and an empty list", `{"data":[],"error":{"message":"no"}}`, "error object"},
		{"no ids at all", `{"data":[{"title":"a"},3]}`, "none of its 2 entries has an id"},
		{"too many", "[" + strings.TrimSuffix(numberedIDs(maxModels+1), ",") + "]", "more than 65536 entries"},
		{"too long", `["` + strings.Repeat("x", maxModelsBytes) + `"]`, "longer than 16 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			models, err := normaliseModels([]byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("normaliseModels = %d models, error %v; want an error with %q", len(models), err, tt.wantErr)
			}
		})
	}
}

func numberedIDs(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.Quote(strconv.Itoa(i)) + ",")
	}
	return b.String()
}

func FuzzNormaliseModels(f *testing.F) {
	for _, s := range []string{
		`{"object":"list","data":[{"id":"a","object":"model","created":1,"owned_by":"x","context_length":1e5}]}`,
		`["a","b\/c","\ud83d"]`, `{"models":[{"name":"models/x"},{"model":"y","created":"2023-11-14T22:13:20Z"}]}`,
		`{"data":{"k":{"id":null,"created":1.5}}}`, `[{"id":"a","id":"b","\u0069d":"c"}]`, `{"error":{}}`, "\ufeff[]", `{"data":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		models, err := normaliseModels(in)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, m := range models {
			if m.ID == "" || seen[m.ID] {
				t.Fatalf("id %q is empty or there twice", m.ID)
			}
			seen[m.ID] = true
			var entry map[string]json.RawMessage
			if err := json.Unmarshal(m.Raw, &entry); err != nil {
				t.Fatalf("%s: %v", m.Raw, err)
			}
			var got struct {
				ID, Object, OwnedBy string
				Created             int64
			}
			for key, to := range map[string]any{"id": &got.ID, "object": &got.Object, "created": &got.Created, "owned_by": &got.OwnedBy} {
				if err := json.Unmarshal(entry[key], to); err != nil {
					t.Fatalf("%s: %s: %v", m.Raw, key, err)
				}
			}
			if got.ID != m.ID || got.Created != m.Created || got.OwnedBy != m.OwnedBy {
				t.Fatalf("%s is not %q, %d, %q", m.Raw, m.ID, m.Created, m.OwnedBy)
			}
		}
		again, err := normaliseModels(appendModels(nil, models))
		if err != nil || !slices.EqualFunc(again, models, func(a, b model) bool { return bytes.Equal(a.Raw, b.Raw) }) {
			t.Fatalf("normalised twice: %s, %v\n once: %s", appendModels(nil, again), err, appendModels(nil, models))
		}
	})
}

// modelUpstream is an upstream's model list that a test can change, hold up and
// count.
type modelUpstream struct {
	mu    sync.Mutex
	body  string
	err   error
	calls []string // scope and key of each
	delay time.Duration
	hang  bool // until the caller gives up
}

func (u *modelUpstream) fetch(ctx context.Context, scope string, key secret) ([]byte, error) {
	u.mu.Lock()
	u.calls = append(u.calls, scope+"/"+string(key))
	body, err, delay, hang := u.body, u.err, u.delay, u.hang
	u.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	return []byte(body), nil
}

func (u *modelUpstream) set(change func(u *modelUpstream)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	change(u)
}

func (u *modelUpstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.calls)
}

// modelStore is the part of a Store that the cache uses.
type modelStore struct {
	Store
	mu     sync.Mutex
	values map[string][]byte
	ttl    time.Duration // of the last Set
	err    error
	setErr error
	sets   int
	delay  time.Duration
}

func (s *modelStore) Get(ctx context.Context, key string) ([]byte, error) {
	time.Sleep(s.delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	v, ok := s.values[key]
	if !ok {
		return nil, errNotFound
	}
	return v, nil
}

func (s *modelStore) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets++
	if err := errors.Join(s.err, s.setErr); err != nil {
		return err
	}
	if s.values == nil {
		s.values = map[string][]byte{}
	}
	s.values[key], s.ttl = bytes.Clone(value), ttl
	return nil
}

func modelConfig(ttl time.Duration) *config {
	return &config{ModelsTTL: ttl, BaseURL: &url.URL{Scheme: "https", Host: "upstream.example", Path: "/v1"}}
}

func openModels(t *testing.T, store Store, u *modelUpstream, cfg *config) *modelCache {
	t.Helper()
	c := newModelCache(store, u.fetch, cfg, slog.New(slog.DiscardHandler))
	t.Cleanup(c.Close)
	return c
}

// modelIDs gets the shared list and says in one line what came: the ids, with a
// "!" behind them when stale, or the error.
func modelIDs(c *modelCache) string { return scopedIDs(context.Background(), c, "", "") }

func scopedIDs(ctx context.Context, c *modelCache, scope string, key secret) string {
	l, stale, err := c.Get(ctx, scope, key)
	if err != nil {
		return "error: " + err.Error()
	}
	var ids []string
	for _, m := range l.Models {
		ids = append(ids, m.ID)
	}
	s := strings.Join(ids, ",")
	if stale {
		s += "!"
	}
	return s
}

func wantModels(t *testing.T, when, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: models %s, want %s", when, got, want)
	}
}

func wantCalls(t *testing.T, when string, u *modelUpstream, want int) {
	t.Helper()
	if got := u.count(); got != want {
		t.Errorf("%s: %d upstream calls, want %d", when, got, want)
	}
}

func TestModelsOneCallForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &modelUpstream{body: `["a"]`, delay: time.Second}
		c := openModels(t, &modelStore{}, u, modelConfig(time.Minute))
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() { wantModels(t, "cold", modelIDs(c), "a") })
		}
		wg.Wait()
		wantCalls(t, "500 cold callers", u, 1)
		wantModels(t, "warm", modelIDs(c), "a")
		wantCalls(t, "warm", u, 1)
	})
}

// An older list is served at once (AC-24).
func TestModelsRefreshInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &modelUpstream{body: `["a"]`}
		c := openModels(t, &modelStore{}, u, modelConfig(time.Minute))
		wantModels(t, "cold", modelIDs(c), "a")
		u.set(func(u *modelUpstream) { u.body, u.delay = `["b"]`, 3*time.Second })

		time.Sleep(59 * time.Second)
		wantModels(t, "within the time to live", modelIDs(c), "a")
		wantCalls(t, "within the time to live", u, 1)

		time.Sleep(time.Second)
		start := time.Now()
		for range 50 {
			wantModels(t, "beyond it", modelIDs(c), "a!")
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("an old list took %v, want none", waited)
		}
		time.Sleep(4 * time.Second)
		wantModels(t, "refreshed", modelIDs(c), "b")
		wantCalls(t, "refreshed", u, 2)
	})
}

func TestModelsOutliveTheUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &modelUpstream{body: `["a"]`}
		c := openModels(t, &modelStore{}, u, modelConfig(time.Minute))
		wantModels(t, "cold", modelIDs(c), "a")
		u.set(func(u *modelUpstream) { u.err = errors.New("connection refused") })
		time.Sleep(time.Minute)
		for range 200 { // 20 s
			wantModels(t, "upstream down", modelIDs(c), "a!")
			time.Sleep(100 * time.Millisecond)
		}
		if n := u.count(); n < 4 || n > 6 {
			t.Errorf("%d upstream calls in 20 s, want the first and one every 5 s", n)
		}
		for _, body := range []string{"<html>", `{"error":{"message":"no"}}`, "", `[`} {
			u.set(func(u *modelUpstream) { u.err, u.body = nil, body })
			time.Sleep(5 * time.Second)
			wantModels(t, "instead of "+body, modelIDs(c), "a!")
			synctest.Wait()
			wantModels(t, "after "+body, modelIDs(c), "a!")
		}
		u.set(func(u *modelUpstream) { u.body = `["b"]` })
		time.Sleep(5 * time.Second)
		modelIDs(c)
		synctest.Wait()
		wantModels(t, "upstream back", modelIDs(c), "b")
	})
}

func TestModelsErrorsAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := upstreamFailure(http.StatusBadGateway, "upstream_unreachable", "refused", nil)
		u := &modelUpstream{err: refused}
		store := &modelStore{}
		c := openModels(t, store, u, modelConfig(time.Minute))
		wantModels(t, "down", modelIDs(c), "error: refused")
		wantModels(t, "still down", modelIDs(c), "error: refused")
		if store.sets > 0 || len(c.scopes) > 0 {
			t.Errorf("an error is kept: %d store writes, %d scopes", store.sets, len(c.scopes))
		}
		u.set(func(u *modelUpstream) { u.err, u.body = nil, `["a"]` })
		wantModels(t, "up", modelIDs(c), "a")
	})
}

func TestModelsErrorStatus(t *testing.T) {
	for _, tt := range []struct {
		name     string
		upstream *modelUpstream
		status   int
		code     string
	}{
		{"the upstream's own", &modelUpstream{err: fmt.Errorf("models: %w", &apiError{Status: 402, Code: "insufficient_quota"})}, 402, "insufficient_quota"},
		{"unreachable", &modelUpstream{err: errors.New("dial: refused")}, 502, "upstream_unreachable"},
		{"silent", &modelUpstream{hang: true}, 504, "upstream_timeout"},
		{"HTML", &modelUpstream{body: "<!doctype html>"}, 502, "upstream_malformed"},
		{"error in a 200", &modelUpstream{body: `{"error":{"message":"no"}}`}, 502, "upstream_malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := openModels(t, &modelStore{}, tt.upstream, modelConfig(time.Minute))
				start := time.Now()
				_, _, err := c.Get(context.Background(), "", "")
				var e *apiError
				if !errors.As(err, &e) || e.Status != tt.status || e.Code != tt.code {
					t.Errorf("Get: %#v, want status %d, code %s", err, tt.status, tt.code)
				}
				if waited := time.Since(start); waited > modelsFetchTimeout {
					t.Errorf("Get took %v, want at most %v", waited, modelsFetchTimeout)
				}
			})
		})
	}
}

func TestModelsCallerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &modelUpstream{body: `["a"]`, delay: 5 * time.Second}
		c := openModels(t, &modelStore{}, u, modelConfig(time.Minute))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { // the one who started the refresh
			start := time.Now()
			wantModels(t, "left", scopedIDs(ctx, c, "", ""), "error: context deadline exceeded")
			if waited := time.Since(start); waited != time.Second {
				t.Errorf("waited %v after leaving at 1s", waited)
			}
		})
		synctest.Wait()
		wg.Go(func() { wantModels(t, "stayed", modelIDs(c), "a") })
		wg.Wait()
		wantCalls(t, "one left", u, 1)
	})
}

func TestModelsSharedThroughTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &modelUpstream{body: `[{"id":"a","created":5,"x":1.50}]`}
		store := &modelStore{}
		cfg := modelConfig(time.Minute)
		first, second := openModels(t, store, u, cfg), openModels(t, store, u, cfg)
		wantModels(t, "first replica", modelIDs(first), "a")
		wantModels(t, "second replica", modelIDs(second), "a")
		wantCalls(t, "two replicas", u, 1)
		l, _, _ := second.Get(context.Background(), "", "")
		if want := `{"object":"list","data":[{"id":"a","object":"model","created":5,"owned_by":"upstream","x":1.50}]}`; string(l.Body) != want {
			t.Errorf("second replica: %s, want %s", l.Body, want)
		}
		if store.ttl < 24*time.Hour {
			t.Errorf("the store forgets the list after %v, want days", store.ttl)
		}

		// The list's age counts from the fetch, not from the reading.
		time.Sleep(time.Minute)
		u.set(func(u *modelUpstream) { u.body = `["b"]` })
		wantModels(t, "both old", modelIDs(first), "a!")
		synctest.Wait()
		wantModels(t, "second, old", modelIDs(second), "a!")
		synctest.Wait()
		wantModels(t, "second takes over the first's refresh", modelIDs(second), "b")
		wantCalls(t, "one refresh for both", u, 2)
	})
}

func TestModelsAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &modelUpstream{body: `["a"]`}
		store := &modelStore{}
		modelIDs(openModels(t, store, u, modelConfig(time.Minute)))
		time.Sleep(time.Hour)
		u.set(func(u *modelUpstream) { u.hang = true })
		c := openModels(t, store, u, modelConfig(time.Minute))
		start := time.Now()
		wantModels(t, "restarted, upstream silent", modelIDs(c), "a!")
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the stored list took %v, want none", waited)
		}
		synctest.Wait()
		wantCalls(t, "the first request starts the refresh", u, 2)
		time.Sleep(20 * time.Second)
		u.set(func(u *modelUpstream) { u.hang, u.body = false, `["b"]` })
		modelIDs(c)
		synctest.Wait()
		wantModels(t, "upstream back", modelIDs(c), "b")
	})
}

func TestModelsStoreOfAnotherUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &modelStore{}
		modelIDs(openModels(t, store, &modelUpstream{body: `["a"]`}, modelConfig(time.Minute)))
		cfg := modelConfig(time.Minute)
		cfg.BaseURL = &url.URL{Scheme: "https", Host: "other.example"}
		wantModels(t, "other upstream", modelIDs(openModels(t, store, &modelUpstream{body: `["b"]`}, cfg)), "b")
		wantModels(t, "first upstream", modelIDs(openModels(t, store, &modelUpstream{body: `["c"]`}, modelConfig(time.Minute))), "a")
	})
}

func TestModelsStoreFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		store *modelStore
		sets  int
	}{
		{"down", &modelStore{err: fmt.Errorf("dial: %w", errStoreDown)}, 0},
		{"slow", &modelStore{err: errStoreDown, delay: storeTimeout}, 0},
		{"read-only", &modelStore{setErr: errStoreDown}, 1},
		{"garbage", &modelStore{values: map[string][]byte{modelsPrefix(modelConfig(0)): []byte("\x00garbage")}}, 1},
		{"no time", &modelStore{values: map[string][]byte{modelsPrefix(modelConfig(0)): []byte(`{"data":["old"]}`)}}, 1},
		{"a time far ahead", &modelStore{values: map[string][]byte{modelsPrefix(modelConfig(0)): []byte(`{"fetched":99999999999999,"data":["a"]}`)}}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := openModels(t, tt.store, &modelUpstream{body: `["a"]`}, modelConfig(time.Minute))
				got := modelIDs(c)
				wantModels(t, "cold", strings.TrimSuffix(got, "!"), "a")
				synctest.Wait()
				wantModels(t, "warm", modelIDs(c), "a")
				tt.store.mu.Lock()
				defer tt.store.mu.Unlock()
				if tt.store.sets != tt.sets {
					t.Errorf("%d store writes, want %d", tt.store.sets, tt.sets)
				}
			})
		})
	}
}

func TestModelsWithoutTimeToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &modelUpstream{body: `["a"]`}
		store := &modelStore{}
		c := openModels(t, store, u, modelConfig(0))
		wantModels(t, "first", modelIDs(c), "a")
		u.set(func(u *modelUpstream) { u.body = `["b"]` })
		wantModels(t, "second", modelIDs(c), "b")
		wantCalls(t, "each asks", u, 2)
		u.set(func(u *modelUpstream) { u.err = errors.New("down") })
		wantModels(t, "down", modelIDs(c), "b!")
		wantModels(t, "down, again", modelIDs(c), "b!")
		wantCalls(t, "a dead upstream is left alone for a second", u, 3)
		wantModels(t, "restarted", modelIDs(openModels(t, store, u, modelConfig(0))), "b!")
		u.set(func(u *modelUpstream) { u.err, u.body = nil, `["c"]` })
		time.Sleep(time.Second)
		wantModels(t, "back", modelIDs(c), "c")
	})
}

func TestModelsScopes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		u := &modelUpstream{body: `["a"]`}
		c := openModels(t, &modelStore{}, u, modelConfig(time.Minute))
		wantModels(t, "one key", scopedIDs(ctx, c, "hash1", "key1"), "a")
		u.set(func(u *modelUpstream) { u.body = `["b"]` })
		wantModels(t, "another key", scopedIDs(ctx, c, "hash2", "key2"), "b")
		wantModels(t, "one key again", scopedIDs(ctx, c, "hash1", "key1"), "a")
		if want := []string{"hash1/key1", "hash2/key2"}; !slices.Equal(u.calls, want) {
			t.Errorf("upstream calls %q, want %q", u.calls, want)
		}
	})
}

func TestModelsScopesAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		limit      int // bytes
		scopes     int
		keeps      int
	}{
		{"by number", `["a"]`, maxModelCacheBytes, 2 * maxModelScopes, maxModelScopes},
		{"by bytes", `[{"id":"a","d":"` + strings.Repeat("x", 1000) + `"}]`, 8500, 8, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := &modelUpstream{body: tt.body}
				store := &modelStore{err: errStoreDown}
				c := openModels(t, store, u, modelConfig(time.Minute))
				c.limit = tt.limit
				get := func(i int) { scopedIDs(context.Background(), c, strconv.Itoa(i), "") }
				for i := range tt.scopes {
					get(0) // used all the time, so never the one used longest ago
					get(i)
				}
				wantCalls(t, "every scope once", u, tt.scopes)
				get(0)
				get(tt.scopes - tt.keeps + 1)
				wantCalls(t, "still there", u, tt.scopes)
				get(1)
				wantCalls(t, "gone", u, tt.scopes+1)
				if len(c.scopes) != c.recent.Len() || len(c.scopes) != tt.keeps {
					t.Errorf("%d scopes, %d in use order, want %d", len(c.scopes), c.recent.Len(), tt.keeps)
				}
				held := 0
				for _, s := range c.scopes {
					held += s.list.size()
				}
				if held != c.bytes || c.bytes > tt.limit {
					t.Errorf("counted %d bytes, hold %d, limit %d", c.bytes, held, tt.limit)
				}
			})
		})
	}
}

func TestModelsScopeInRefreshStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &modelUpstream{body: `["a"]`}
		c := openModels(t, &modelStore{err: errStoreDown}, u, modelConfig(time.Minute))
		c.limit = 1 // room for one list at most
		wantModels(t, "cold", modelIDs(c), "a")
		u.set(func(u *modelUpstream) { u.body, u.delay = `["longer"]`, time.Second })
		time.Sleep(time.Minute)
		wantModels(t, "old", modelIDs(c), "a!")
		synctest.Wait()
		u.set(func(u *modelUpstream) { u.delay = 0 })
		wantModels(t, "another, in the meantime", scopedIDs(context.Background(), c, "other", ""), "longer")
		time.Sleep(2 * time.Second)
		wantModels(t, "refreshed", modelIDs(c), "longer")
		wantCalls(t, "refreshed", u, 3)
		if s := c.scopes[""]; len(c.scopes) != 1 || c.bytes != s.list.size() {
			t.Errorf("%d scopes, %d bytes counted, want one of %d", len(c.scopes), c.bytes, s.list.size())
		}
	})
}

func TestModelsStatic(t *testing.T) {
	cfg := modelConfig(time.Nanosecond)
	cfg.BaseURL = nil
	cfg.ModelsStatic = []string{"b", "org/a", "b", ""}
	cfg.Aliases = []modelAlias{{"short", "org/a"}}
	u := &modelUpstream{}
	c := openModels(t, &modelStore{err: errStoreDown}, u, cfg)
	wantModels(t, "static", modelIDs(c), "b,org/a,short")
	wantCalls(t, "static", u, 0)
}

func TestModelsAliases(t *testing.T) {
	cfg := modelConfig(time.Minute)
	cfg.Aliases = []modelAlias{
		{"claude-*", "big"}, {"gpt-4o", "big"}, {"gpt-4o", "small"}, {"small", "big"}, {"lost", "elsewhere"}, {"second", "gpt-4o"},
	}
	u := &modelUpstream{body: `[{"id":"big","object":"model","created":7,"owned_by":"org","context_length":1e5},"small"]`}
	c := openModels(t, &modelStore{}, u, cfg)
	l, _, err := c.Get(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"object":"list","data":[` +
		`{"id":"big","object":"model","created":7,"owned_by":"org","context_length":1e5},` +
		`{"id":"small","object":"model","created":0,"owned_by":"upstream"},` +
		`{"id":"gpt-4o","object":"model","created":7,"owned_by":"org","context_length":1e5},` +
		`{"id":"lost","object":"model","created":0,"owned_by":"apiproxy"},` +
		`{"id":"second","object":"model","created":7,"owned_by":"org","context_length":1e5}]}`
	if string(l.Body) != want {
		t.Errorf("list\n got %s\nwant %s", l.Body, want)
	}
}

func TestModelsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &modelUpstream{body: `["a"]`}
		c := openModels(t, &modelStore{}, u, modelConfig(time.Minute))
		modelIDs(c)
		u.set(func(u *modelUpstream) { u.hang = true })
		time.Sleep(time.Minute)
		modelIDs(c) // starts a refresh that hangs
		synctest.Wait()
		c.Close()
		synctest.Wait()
		wantModels(t, "closed", modelIDs(c), "a!")
		_, _, err := c.Get(context.Background(), "other", "")
		var e *apiError
		if !errors.As(err, &e) || e.Status != http.StatusServiceUnavailable {
			t.Errorf("closed, nothing at hand: %v, want a 503", err)
		}
	})
}

// modelServer serves the routes of this file; who is sent as the key in X-Api-Key.
func modelServer(mode authMode, c *modelCache) http.Handler {
	s := &server{keys: newKeyring(&config{Auth: mode}), models: c}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", s.handleModels)
	mux.HandleFunc("GET /v1/models/{id...}", s.handleModel)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x, r := newExchange(r)
		x.cred, _ = s.keys.open(keysOf(r))
		mux.ServeHTTP(w, r)
	})
}

func TestHandleModels(t *testing.T) {
	const (
		a    = `{"id":"org/a:free","object":"model","created":7,"owned_by":"x","context_length":1e5}`
		list = `{"object":"list","data":[` + a + `]}`
	)
	for _, tt := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/v1/models", 200, list},
		{"GET", "/v1/models/org/a:free", 200, a},
		{"GET", "/v1/models/org%2Fa%3Afree", 200, a},
		{"GET", "/v1/models/org%2Fa", 404, `{"error":{"message":"The model 'org/a' does not exist","type":"invalid_request_error","param":"model","code":"model_not_found"}}`},
		{"GET", "/v1/models/%22%3Cx%3E", 404, `{"error":{"message":"The model '\"<x>' does not exist","type":"invalid_request_error","param":"model","code":"model_not_found"}}`},
	} {
		t.Run(tt.method+" "+tt.path, func(t *testing.T) {
			c := openModels(t, &modelStore{}, &modelUpstream{body: "[" + a + "]"}, modelConfig(time.Minute))
			w := httptest.NewRecorder()
			modelServer(authOff, c).ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
			if w.Code != tt.status || !sameJSON(t, w.Body.String(), tt.body) {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, tt.status, tt.body)
			}
			if tt.status == 200 && w.Body.String() != tt.body {
				t.Errorf("body %s, want the very bytes %s", w.Body, tt.body)
			}
			h := w.Header()
			if h.Get("Content-Type") != "application/json" || h.Get("Content-Length") != strconv.Itoa(w.Body.Len()) || h["X-Apiproxy-Models"] != nil {
				t.Errorf("headers %v for %d bytes", h, w.Body.Len())
			}
		})
	}
}

func sameJSON(t *testing.T, got, want string) bool {
	t.Helper()
	var g, w any
	if err := errors.Join(json.Unmarshal([]byte(got), &g), json.Unmarshal([]byte(want), &w)); err != nil {
		t.Fatal(err)
	}
	gb, _ := json.Marshal(g)
	wb, _ := json.Marshal(w)
	return bytes.Equal(gb, wb)
}

func TestHandleModelsHead(t *testing.T) {
	c := openModels(t, &modelStore{}, &modelUpstream{body: `["a"]`}, modelConfig(time.Minute))
	srv := httptest.NewServer(modelServer(authOff, c))
	defer srv.Close()
	for _, path := range []string{"/v1/models", "/v1/models/a"} {
		got, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		got.Body.Close()
		head, err := http.Head(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		head.Body.Close()
		if head.StatusCode != 200 || head.ContentLength != got.ContentLength || head.ContentLength <= 0 {
			t.Errorf("HEAD %s: %d, length %d; GET has length %d", path, head.StatusCode, head.ContentLength, got.ContentLength)
		}
	}
}

func TestHandleModelsStaleAndFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &modelUpstream{err: upstreamFailure(http.StatusBadGateway, "upstream_unreachable", "the upstream can't be reached", nil)}
		h := modelServer(authOff, openModels(t, &modelStore{}, u, modelConfig(time.Minute)))
		for _, path := range []string{"/v1/models", "/v1/models/a"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Code != 502 || !strings.Contains(w.Body.String(), `"code":"upstream_unreachable"`) {
				t.Errorf("GET %s with nothing at hand: %d %s", path, w.Code, w.Body)
			}
		}
		u.set(func(u *modelUpstream) { u.err, u.body = nil, `["a"]` })
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v1/models", nil))
		time.Sleep(time.Minute)
		u.set(func(u *modelUpstream) { u.err = errors.New("down") })
		for _, path := range []string{"/v1/models", "/v1/models/a"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			if w.Code != 200 || w.Header().Get("X-APIProxy-Models") != "stale" {
				t.Errorf("GET %s with an old list: %d, %v", path, w.Code, w.Header())
			}
		}
	})
}

func TestHandleModelsScope(t *testing.T) {
	for _, tt := range []struct {
		mode  authMode
		calls []string
	}{
		{authOff, []string{"/"}},
		{authPassthrough, []string{ownerOf("sk-one") + "/sk-one", ownerOf("sk-two") + "/sk-two"}},
	} {
		t.Run(string(tt.mode), func(t *testing.T) {
			u := &modelUpstream{body: `["a"]`}
			h := modelServer(tt.mode, openModels(t, &modelStore{}, u, modelConfig(time.Minute)))
			for _, key := range []string{"sk-one", "sk-two", "sk-one"} {
				r := httptest.NewRequest("GET", "/v1/models", nil)
				r.Header.Set("X-Api-Key", key)
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
			if !slices.Equal(u.calls, tt.calls) {
				t.Errorf("upstream calls %q, want %q", u.calls, tt.calls)
			}
		})
	}
}
