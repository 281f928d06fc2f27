package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const testOwner = "owner"

// storeWith is a memory store that holds the given turns of testOwner's.
func storeWith(t *testing.T, turns ...storedResponse) Store {
	t.Helper()
	store := newMemoryStore(1<<24, storeLimits{SessionTTL: time.Hour, MaxTurns: 50})
	t.Cleanup(func() { store.Close() })
	for _, r := range turns {
		if err := saveResponse(t.Context(), store, testOwner, r, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// downStore is a store that can't be reached.
type downStore struct{ Store }

func (downStore) Get(context.Context, string) ([]byte, error) {
	return nil, fmt.Errorf("get: %w", errStoreDown)
}

func (downStore) Set(context.Context, string, []byte, time.Duration) error {
	return fmt.Errorf("set: %w", errStoreDown)
}

func TestStoredResponseIsKeptWhole(t *testing.T) {
	r := storedTurn("resp_1", "resp_0", `[{"type":"message","role":"user","content":"<é>","n":12345678901234567890}]`, `[{"type":"reasoning","id":"rs_1","summary":[]}]`)
	r.Stamps = []reasoningStamp{{"rs_1", "apx1.c."}}
	got, err := loadResponse(t.Context(), storeWith(t, r), testOwner, "resp_1")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*got, r) {
		t.Errorf("loaded %+v, want %+v", *got, r)
	}
	if want := `{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"apx1.c."}`; len(got.output()) != 1 || string(got.output()[0]) != want {
		t.Errorf("output %s, want %s", got.output(), want)
	}
}

func TestLoadChain(t *testing.T) {
	one := storedTurn("resp_1", "", `[]`, `[]`)
	two := storedTurn("resp_2", "resp_1", `[]`, `[]`)
	two.Status = "incomplete"
	three := storedTurn("resp_3", "resp_2", `[]`, `[]`)
	failed := storedTurn("resp_f", "resp_1", `[]`, `[]`)
	failed.Status = "failed"
	after := storedTurn("resp_g", "resp_f", `[]`, `[]`)
	orphan := storedTurn("resp_o", "resp_gone", `[]`, `[]`)

	chain, err := loadChain(t.Context(), storeWith(t, one, two, three), testOwner, "resp_3")
	var ids []string
	for _, r := range chain {
		ids = append(ids, r.ID)
	}
	if want := []string{"resp_1", "resp_2", "resp_3"}; err != nil || !slices.Equal(ids, want) {
		t.Errorf("D-142: chain %q, %v; want %q", ids, err, want)
	}

	deleted := storeWith(t, one, two, three)
	if err := deleteResponse(t.Context(), deleted, testOwner, "resp_1", time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name      string
		store     Store
		owner, id string
		status    int
		code      string
	}{
		{"D-27 unknown", storeWith(t, one), testOwner, "resp_x", 400, "previous_response_not_found"},
		{"too long an id", storeWith(t, one), testOwner, strings.Repeat("r", 300), 400, "previous_response_not_found"},
		{"D-141 H-37 another's", storeWith(t, one), "other", "resp_1", 400, "previous_response_not_found"},
		{"D-147 H-37 deleted in the middle", deleted, testOwner, "resp_3", 400, "previous_response_not_found"},
		{"expired in the middle", storeWith(t, orphan), testOwner, "resp_o", 400, "previous_response_not_found"},
		{"D-142 failed", storeWith(t, one, failed), testOwner, "resp_f", 400, "previous_response_failed"},
		{"D-142 failed before", storeWith(t, one, failed, after), testOwner, "resp_g", 400, "previous_response_failed"},
		{"store down", downStore{}, testOwner, "resp_1", 503, "store_unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			chain, err := loadChain(t.Context(), tt.store, tt.owner, tt.id)
			var e *apiError
			if !errors.As(err, &e) || e.Status != tt.status || e.Code != tt.code || chain != nil {
				t.Errorf("loadChain = %v, %v; want %d %s", chain, err, tt.status, tt.code)
			}
		})
	}
}

func TestLoadChainLimit(t *testing.T) {
	store := storeWith(t)
	id := func(i int) string { return fmt.Sprint("resp_", i) }
	for i := range maxChain + 1 {
		previous := id(i - 1)
		if i == 0 {
			previous = ""
		}
		if err := saveResponse(t.Context(), store, testOwner, storedTurn(id(i), previous, `[]`, `[]`), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if chain, err := loadChain(t.Context(), store, testOwner, id(maxChain-1)); err != nil || len(chain) != maxChain {
		t.Errorf("a chain of %d: %d, %v", maxChain, len(chain), err)
	}
	_, err := loadChain(t.Context(), store, testOwner, id(maxChain))
	wantRefusal(t, err, "previous_response_id", "")
}

func TestLoadItems(t *testing.T) {
	ids := itemIDs{base: testBase}
	said, thought := ids.next("msg_"), ids.next("rs_")
	r := storedTurn(ids.response(), "", `[{"id":"`+said+`","role":"user"}]`, `[{"type":"reasoning","id":"`+thought+`","summary":[]}]`)
	r.Stamps = []reasoningStamp{{thought, "apx1.c."}}
	store := storeWith(t, r)
	ask := []string{said, thought, ids.next("fc_"), "msg_" + strings.Repeat("a", 32), "msg_short"}
	items, err := loadItems(t.Context(), store, testOwner, ask)
	if err != nil || len(items) != 2 || string(items[said]) != `{"id":"`+said+`","role":"user"}` || text(member(items[thought], "encrypted_content")) != "apx1.c." {
		t.Errorf("D-60: items %s, %v; want the message, and the reasoning with its stamp", items, err)
	}
	if items, err := loadItems(t.Context(), store, "other", ask); err != nil || len(items) > 0 {
		t.Errorf("D-141: another's items %s, %v; want none", items, err)
	}
	var e *apiError
	if _, err := loadItems(t.Context(), downStore{}, testOwner, ask); !errors.As(err, &e) || e.Status != 503 {
		t.Errorf("store down: %v, want 503", err)
	}
	if _, err := loadItems(t.Context(), downStore{}, testOwner, []string{"msg_short"}); err != nil {
		t.Errorf("an id that is not ours asks the store: %v", err)
	}
}

func TestResponsesChainNeeds(t *testing.T) {
	for _, tt := range []struct {
		name, body, previous string
		references           []string
	}{
		{"nothing", `{"model":"m","input":"hi"}`, "", nil},
		{"previous", `{"previous_response_id":"resp_1","input":[]}`, "resp_1", nil},
		{"null", `{"previous_response_id":null}`, "", nil},
		{"references", `{"input":[{"type":"item_reference","id":"a"},{"id":"b"},{"id":"c","role":"user","content":"x"},{"type":"item_reference","id":null},{"id":"d","type":null}]}`, "", []string{"a", "b", "d"}},
		{"reasoning", `{"input":[{"type":"reasoning","id":"a","summary":[]},{"type":"reasoning","id":"b","encrypted_content":"x"},{"type":"reasoning","id":"c","encrypted_content":null}]}`, "", []string{"a", "c"}},
		{"not items", `{"input":[1,"a",{"id":5}]}`, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			previous, references, err := responsesChain([]byte(tt.body))
			if err != nil || previous != tt.previous || !slices.Equal(references, tt.references) {
				t.Errorf("responsesChain(%s) = %q, %q, %v; want %q, %q", tt.body, previous, references, err, tt.previous, tt.references)
			}
		})
	}
	_, _, err := responsesChain([]byte(`{"previous_response_id":5}`))
	wantRefusal(t, err, "previous_response_id", "invalid_type")
}

func TestInputItemsPage(t *testing.T) {
	var items []json.RawMessage
	for i := range 25 {
		items = append(items, fmt.Appendf(nil, `{"id":"i%d"}`, i))
	}
	for _, tt := range []struct {
		query, first, last string
		n                  int
		more               bool
	}{
		{"", "i24", "i5", 20, true},
		{"order=asc", "i0", "i19", 20, true},
		{"order=desc&limit=2", "i24", "i23", 2, true},
		{"order=asc&limit=2", "i0", "i1", 2, true},
		{"order=asc&after=i19", "i20", "i24", 5, false},
		{"after=i5&limit=100", "i4", "i0", 5, false},
		{"limit=25", "i24", "i0", 25, false},
		{"after=i0", "", "", 0, false},
	} {
		t.Run(tt.query, func(t *testing.T) {
			query, _ := url.ParseQuery(tt.query)
			page, err := inputItemsPage(items, query)
			if err != nil {
				t.Fatal(err)
			}
			first, last := "", ""
			if page.FirstID != nil {
				first, last = *page.FirstID, *page.LastID
			}
			if page.Object != "list" || len(page.Data) != tt.n || first != tt.first || last != tt.last || page.HasMore != tt.more {
				t.Errorf("D-146: %d items from %q to %q, more %v; want %d from %q to %q, more %v", len(page.Data), first, last, page.HasMore, tt.n, tt.first, tt.last, tt.more)
			}
			if b, _ := marshal(page); tt.n == 0 && string(b) != `{"object":"list","data":[],"first_id":null,"last_id":null,"has_more":false}` {
				t.Errorf("an empty page is %s", b)
			}
		})
	}
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "order=up", "after=i99"} {
		values, _ := url.ParseQuery(query)
		_, err := inputItemsPage(items, values)
		param, _, _ := strings.Cut(query, "=")
		var e *apiError
		if !errors.As(err, &e) || e.Status != 400 || e.Param != param {
			t.Errorf("%s: %v, want 400 for %s", query, err, param)
		}
	}
}

// responsesServer is a server with no more than the response routes need.
func responsesServer(store Store) *server {
	return &server{mask: newMask(&config{}), cfg: &config{SessionTTL: time.Hour}, store: store, log: slog.New(slog.DiscardHandler)}
}

// asked calls a handler as testOwner.
func asked(t *testing.T, handle http.HandlerFunc, method, target, id string) *httptest.ResponseRecorder {
	t.Helper()
	x, r := newExchange(httptest.NewRequest(method, target, nil))
	x.dialect, x.cred.Owner = &responses, testOwner
	r.SetPathValue("id", id)
	w := httptest.NewRecorder()
	handle(w, r)
	return w
}

func TestResponseRoutes(t *testing.T) {
	r := storedTurn("resp_1", "", `[{"id":"i1"},{"id":"i2"}]`, `[]`)
	s := responsesServer(storeWith(t, r))
	notFound := func(id string) string {
		return `{"error":{"message":"Response with id '` + id + `' not found.","type":"invalid_request_error","param":null,"code":null}}`
	}
	for _, tt := range []struct {
		name   string
		handle http.HandlerFunc
		method string
		target string
		id     string
		status int
		body   string
	}{
		{"D-2", s.handleGetResponse, "GET", "/", "resp_1", 200, string(r.Object)},
		{"D-145", s.handleGetResponse, "GET", "/", "resp_x", 404, notFound("resp_x")},
		{"D-4", s.handleInputItems, "GET", "/?order=asc", "resp_1", 200, `{"object":"list","data":[{"id":"i1"},{"id":"i2"}],"first_id":"i1","last_id":"i2","has_more":false}`},
		{"D-4 unknown", s.handleInputItems, "GET", "/", "resp_x", 404, notFound("resp_x")},
		{"D-4 bad limit", s.handleInputItems, "GET", "/?limit=x", "resp_1", 400, `{"error":{"message":"limit: must be an integer from 1 to 100","type":"invalid_request_error","param":"limit","code":null}}`},
		{"D-130 bad start", s.handleGetResponse, "GET", "/?stream=true&starting_after=x", "resp_1", 400, `{"error":{"message":"starting_after: must be the sequence number of an event","type":"invalid_request_error","param":"starting_after","code":null}}`},
		{"D-5", s.handleCancelResponse, "POST", "/", "resp_1", 400, `{"error":{"message":"Only background responses can be cancelled.","type":"invalid_request_error","param":null,"code":null}}`},
		{"D-7", s.handleCompactResponse, "POST", "/", "", 404, `{"error":{"message":"this gateway does not compact conversations; send a shorter history as input","type":"invalid_request_error","param":null,"code":"unknown_url"}}`},
		{"D-3", s.handleDeleteResponse, "DELETE", "/", "resp_1", 200, `{"id":"resp_1","object":"response","deleted":true}`},
		{"D-3 again", s.handleDeleteResponse, "DELETE", "/", "resp_1", 404, notFound("resp_1")},
		{"gone", s.handleGetResponse, "GET", "/", "resp_1", 404, notFound("resp_1")},
		{"store down", responsesServer(downStore{}).handleGetResponse, "GET", "/", "resp_1", 503,
			`{"error":{"message":"the store can't be reached, so the response can't be read now; try again","type":"server_error","param":null,"code":"store_unavailable"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := asked(t, tt.handle, tt.method, tt.target, tt.id)
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("%d %s\nwant %d %s", w.Code, w.Body, tt.status, tt.body)
			}
		})
	}
}

// A conversation over two turns, from the store and into it.
func TestResponsesLoadConversation(t *testing.T) {
	s := responsesServer(storeWith(t))
	ask := func(body, completion string) (upstream, object string) {
		t.Helper()
		x, _ := newExchange(httptest.NewRequest("POST", "/v1/responses", nil))
		x.dialect, x.cfg, x.header, x.cred.Owner = &responses, s.cfg, http.Header{}, testOwner
		if err := s.loadChain(x, []byte(body)); err != nil {
			t.Fatal(err)
		}
		return upstreamBody(t, x, body), string(streamedObject(t, x, completion))
	}
	_, first := ask(`{"model":"m","input":"one","tools":[{"type":"function","name":"f"}]}`,
		`{"choices":[{"message":{"reasoning_content":"hm","tool_calls":[{"id":"c1","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`)
	id := text(member([]byte(first), "id"))
	upstream, second := ask(`{"model":"m","previous_response_id":"`+id+`","input":[{"type":"function_call_output","call_id":"c1","output":"1"}]}`,
		`{"choices":[{"message":{"content":"done"},"finish_reason":"stop"}]}`)
	want := `{"model":"m","messages":[{"role":"user","content":"one"},{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"1"}]}`
	if upstream != want {
		t.Errorf("AC-22: the second turn is\n%s\nwant\n%s", upstream, want)
	}
	if got := text(member([]byte(second), "previous_response_id")); got != id || string(member([]byte(second), "store")) != "true" {
		t.Errorf("previous_response_id = %q, store = %s; want %q, true", got, member([]byte(second), "store"), id)
	}
	upstream, _ = ask(`{"model":"m","previous_response_id":"`+text(member([]byte(second), "id"))+`","input":"three"}`, `{"choices":[{"message":{"content":"x"}}]}`)
	if want := `{"role":"assistant","content":"done"},{"role":"user","content":"three"}]}`; !strings.HasSuffix(upstream, want) {
		t.Errorf("AC-22: the third turn is %s, want it to end in %s", upstream, want)
	}

	x, _ := newExchange(httptest.NewRequest("POST", "/v1/responses", nil))
	x.cred.Owner = "other"
	err := s.loadChain(x, []byte(`{"previous_response_id":"`+id+`"}`))
	wantRefusal(t, err, "previous_response_id", "previous_response_not_found")
}

// streamedObject is the terminal object of a completion that came as a stream.
func streamedObject(t *testing.T, x *exchange, completion string) []byte {
	t.Helper()
	return checkResponsesStream(t, streamed(t, x, completion)).object
}
