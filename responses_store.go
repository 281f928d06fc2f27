package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// maxChain is how many responses a conversation may have (dialects D-142).
const maxChain = 1000

// A storedResponse is one turn of a conversation as it is stored: what it costs
// depends on the turn, not on the conversation (dialects D-140).
type storedResponse struct {
	ID       string            `json:"id"`
	Previous string            `json:"previous,omitempty"` // the response before it
	Status   string            `json:"status"`             // completed, incomplete or failed
	Deleted  bool              `json:"deleted,omitempty"`  // what is left of a deleted one
	Input    []json.RawMessage `json:"input,omitempty"`    // its own input items, with ids
	Object   json.RawMessage   `json:"object,omitempty"`   // the terminal object
	// Stamps say where the reasoning in Object has to go back, which the client has
	// not been told unless it asked (dialects D-144).
	Stamps []reasoningStamp `json:"stamps,omitempty"`
}

// reasoningStamp is the stamp of one reasoning item; the text stands in the item.
type reasoningStamp struct {
	ID    string `json:"id"`
	Stamp string `json:"stamp"`
}

// output are the items of the answer, reasoning with its stamp.
func (r *storedResponse) output() []json.RawMessage {
	var list []json.RawMessage
	for raw := range elements(member(r.Object, "output")) {
		list = append(list, r.stamped(raw))
	}
	return list
}

// stamped is an item of the answer with its stamp, if it has one.
func (r *storedResponse) stamped(raw []byte) json.RawMessage {
	if len(r.Stamps) == 0 || member(raw, "encrypted_content") != nil {
		return raw
	}
	id := text(member(raw, "id"))
	i := slices.IndexFunc(r.Stamps, func(s reasoningStamp) bool { return s.ID == id })
	if i < 0 {
		return raw
	}
	out := append(bytes.Clone(raw[:len(raw)-1]), `,"encrypted_content":`...)
	return append(appendQuoted(out, r.Stamps[i].Stamp), '}')
}

// item is an item of the turn by its id, nil for none.
func (r *storedResponse) item(id string) json.RawMessage {
	for _, raw := range r.Input {
		if text(member(raw, "id")) == id {
			return raw
		}
	}
	for raw := range elements(member(r.Object, "output")) {
		if text(member(raw, "id")) == id {
			return r.stamped(raw)
		}
	}
	return nil
}

func responseKey(owner, id string) string { return "response:" + owner + ":" + url.QueryEscape(id) }

// loadResponse reads a response that is there and is the owner's; else
// errNotFound.
func loadResponse(ctx context.Context, store Store, owner, id string) (*storedResponse, error) {
	if id == "" || len(id) > 255 {
		return nil, errNotFound
	}
	value, err := store.Get(ctx, responseKey(owner, id))
	if err != nil {
		return nil, err
	}
	var r storedResponse
	if err := json.Unmarshal(value, &r); err != nil || r.Deleted {
		return nil, errNotFound
	}
	return &r, nil
}

// saveResponse stores a response for at least ttl.
func saveResponse(ctx context.Context, store Store, owner string, r storedResponse, ttl time.Duration) error {
	value, err := marshal(r)
	if err != nil {
		return err
	}
	return store.Set(ctx, responseKey(owner, r.ID), value, ttl)
}

// deleteResponse leaves a mark in the place of a response, so that a conversation
// that goes on from it is refused; errNotFound when there is none.
func deleteResponse(ctx context.Context, store Store, owner, id string, ttl time.Duration) error {
	if _, err := loadResponse(ctx, store, owner, id); err != nil {
		return err
	}
	return saveResponse(ctx, store, owner, storedResponse{ID: id, Deleted: true}, ttl)
}

// loadChain reads the conversation that ends with a response, oldest first. The
// errors are the client's to read: 400 when a part of it is not there any more,
// or has failed, 503 when the store can't be asked.
func loadChain(ctx context.Context, store Store, owner, id string) ([]storedResponse, error) {
	var chain []storedResponse
	for at := id; at != ""; {
		if len(chain) == maxChain {
			return nil, invalid("previous_response_id", "the conversation has more than "+strconv.Itoa(maxChain)+" responses; send a shorter one as input")
		}
		r, err := loadResponse(ctx, store, owner, at)
		switch {
		case errors.Is(err, errNotFound):
			return nil, previousNotFound(id)
		case err != nil:
			return nil, storeUnavailable(err)
		case r.Status == "failed":
			e := badRequest("previous_response_id", "The response '"+at+"' has failed, so nothing can follow it; go on from the one before it.")
			e.Code = "previous_response_failed"
			return nil, e
		}
		chain = append(chain, *r)
		at = r.Previous
	}
	slices.Reverse(chain)
	return chain, nil
}

func previousNotFound(id string) *apiError {
	e := badRequest("previous_response_id", "Previous response with id '"+id+"' not found.")
	e.Code = "previous_response_not_found"
	return e
}

// loadItems reads the stored items of those ids. What is not there is left out;
// 503 when the store can't be asked.
func loadItems(ctx context.Context, store Store, owner string, ids []string) (map[string]json.RawMessage, error) {
	items := map[string]json.RawMessage{}
	loaded := map[string]*storedResponse{}
	for _, id := range ids {
		from := responseOf(id)
		if from == "" {
			continue
		}
		r, ok := loaded[from]
		if !ok {
			var err error
			if r, err = loadResponse(ctx, store, owner, from); err != nil && !errors.Is(err, errNotFound) {
				return nil, storeUnavailable(err)
			}
			loaded[from] = r
		}
		if r == nil {
			continue
		}
		if raw := r.item(id); raw != nil {
			items[id] = raw
		}
	}
	return items, nil
}

// responsesChain says what must be loaded before a request can be decoded: the
// response that it goes on from, and the stored items that it names by id.
func responsesChain(body []byte) (previousID string, references []string, err error) {
	for k, v := range members(body) {
		switch string(k) {
		case "previous_response_id":
			if !isNull(v) && !isString(v) {
				return "", nil, wrongType("previous_response_id", "a string", v)
			}
			previousID = text(v)
		case "input":
			references = nil
			for raw := range elements(v) {
				var it struct {
					Type      json.RawMessage `json:"type"`
					ID        json.RawMessage `json:"id"`
					Encrypted json.RawMessage `json:"encrypted_content"`
				}
				if !isObject(raw) || json.Unmarshal(raw, &it) != nil {
					continue // the decoder says what is wrong with it
				}
				id, typ := text(it.ID), text(it.Type)
				named := (&responsesItem{Type: typ, ID: id}).isReference(raw)
				if id != "" && (named || typ == "reasoning" && isNull(it.Encrypted)) {
					references = append(references, id)
				}
			}
		}
	}
	return previousID, references, nil
}

// loadChain fills what a request needs of the store before it is decoded,
// and how its answer will be kept.
func (s *server) loadChain(x *exchange, body []byte) error {
	previous, references, err := responsesChain(body)
	if err != nil {
		return err
	}
	r := &responsesRequest{Keep: s.keepResponse(x)}
	x.responses = r
	if previous != "" {
		if r.Chain, err = loadChain(x.ctx, s.store, x.cred.Owner, previous); err != nil {
			return err
		}
	}
	if len(references) > 0 {
		r.Items, err = loadItems(x.ctx, s.store, x.cred.Owner, references)
	}
	return err
}

// keepResponse stores an answer, and says whether that worked.
func (s *server) keepResponse(x *exchange) func(storedResponse) bool {
	return func(r storedResponse) bool {
		s.mask.bytes(r.Object)
		if err := saveResponse(context.WithoutCancel(x.ctx), s.store, x.cred.Owner, r, s.cfg.SessionTTL); err != nil {
			s.log.Warn("a response is not stored", "id", r.ID, "error", err)
			return false
		}
		return true
	}
}

// responseNotFound is the 404 of the routes that name a response.
func responseNotFound(id string) *apiError {
	return &apiError{Status: http.StatusNotFound, Type: "invalid_request_error", NoRetry: true, Message: "Response with id '" + id + "' not found."}
}

// storedResponse reads the response that a request's path names.
func (s *server) storedResponse(r *http.Request) (*storedResponse, error) {
	id := r.PathValue("id")
	found, err := loadResponse(r.Context(), s.store, exchangeOf(r).cred.Owner, id)
	if err != nil {
		return nil, storedError(id, err)
	}
	return found, nil
}

func storedError(id string, err error) error {
	if errors.Is(err, errNotFound) {
		return responseNotFound(id)
	}
	e := storeUnavailable(err)
	e.Message = "the store can't be reached, so the response can't be read now; try again"
	return e
}

// handleGetResponse serves GET /v1/responses/{id}, as one object or, with
// ?stream=true, as the events that led to it.
func (s *server) handleGetResponse(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	stored, err := s.storedResponse(r)
	if err != nil {
		writeError(w, x, err)
		return
	}
	query := r.URL.Query()
	if query.Get("stream") != "true" {
		writeJSON(w, http.StatusOK, stored.Object)
		return
	}
	after := int64(-1)
	if v := query.Get("starting_after"); v != "" {
		if after, err = strconv.ParseInt(v, 10, 64); err != nil {
			writeError(w, x, invalid("starting_after", "must be the sequence number of an event"))
			return
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	w.Write(replayEvents(stored.Object, after))
}

// handleDeleteResponse serves DELETE /v1/responses/{id}.
func (s *server) handleDeleteResponse(w http.ResponseWriter, r *http.Request) {
	x, id := exchangeOf(r), r.PathValue("id")
	if err := deleteResponse(x.ctx, s.store, x.cred.Owner, id, s.cfg.SessionTTL); err != nil {
		writeError(w, x, storedError(id, err))
		return
	}
	writeJSON(w, http.StatusOK, struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Deleted bool   `json:"deleted"`
	}{id, "response", true})
}

// handleInputItems serves GET /v1/responses/{id}/input_items.
func (s *server) handleInputItems(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	stored, err := s.storedResponse(r)
	if err == nil {
		var page *itemsPage
		if page, err = inputItemsPage(stored.Input, r.URL.Query()); err == nil {
			writeJSON(w, http.StatusOK, page)
			return
		}
	}
	writeError(w, x, err)
}

// handleCancelResponse serves POST /v1/responses/{id}/cancel: no response ever
// runs in the background here.
func (s *server) handleCancelResponse(w http.ResponseWriter, r *http.Request) {
	writeError(w, exchangeOf(r), badRequest("", "Only background responses can be cancelled."))
}

// handleCompactResponse serves POST /v1/responses/compact, which is not
// implemented: the state that it makes is OpenAI's own.
func (s *server) handleCompactResponse(w http.ResponseWriter, r *http.Request) {
	writeError(w, exchangeOf(r), &apiError{
		Status: http.StatusNotFound, Type: "invalid_request_error", Code: "unknown_url", NoRetry: true,
		Message: "this gateway does not compact conversations; send a shorter history as input",
	})
}

// itemsPage is a page of a response's input items.
type itemsPage struct {
	Object  string            `json:"object"`
	Data    []json.RawMessage `json:"data"`
	FirstID *string           `json:"first_id"`
	LastID  *string           `json:"last_id"`
	HasMore bool              `json:"has_more"`
}

// inputItemsPage cuts a page out of a response's input items, the newest first
// unless the query says order=asc (dialects D-146).
func inputItemsPage(items []json.RawMessage, query url.Values) (*itemsPage, error) {
	list := slices.Clone(items)
	switch order := query.Get("order"); order {
	case "", "desc":
		slices.Reverse(list)
	case "asc":
	default:
		return nil, invalidValue("order", order, "'asc' and 'desc'")
	}
	limit := 20
	if v := query.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 100 {
			return nil, invalid("limit", "must be an integer from 1 to 100")
		}
		limit = n
	}
	if after := query.Get("after"); after != "" {
		i := slices.IndexFunc(list, func(raw json.RawMessage) bool { return text(member(raw, "id")) == after })
		if i < 0 {
			return nil, badRequest("after", "Item with id '"+after+"' not found.")
		}
		list = list[i+1:]
	}
	page := &itemsPage{Object: "list", Data: list[:min(limit, len(list))], HasMore: len(list) > limit}
	if n := len(page.Data); n > 0 {
		page.FirstID, page.LastID = orNil(text(member(page.Data[0], "id"))), orNil(text(member(page.Data[n-1], "id")))
	}
	if page.Data == nil {
		page.Data = []json.RawMessage{}
	}
	return page, nil
}
