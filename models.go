package main

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of the model list and its cache.
const (
	modelsFetchTimeout = 10 * time.Second   // one refresh, its store calls included
	modelsMaxBackoff   = 5 * time.Second    // pause after a failed refresh
	modelsKeep         = 7 * 24 * time.Hour // the store keeps a list this long beyond MODELS_CACHE_TTL
	maxModelsBytes     = 16 << 20           // an upstream's list
	maxModels          = 1 << 16            // entries in it
	maxModelID         = 512                // bytes of an id
	maxModelScopes     = 256                // lists kept in the process
	maxModelCacheBytes = 64 << 20           // all of those together
)

// fetchModels asks the upstream for its model list and returns the body of a
// 2xx answer, at most maxModelsBytes of it, with the upstream's key masked;
// anything else is an *apiError. It returns soon after ctx ends. scope and key
// are those of modelCache.Get.
type fetchModels func(ctx context.Context, scope string, key secret) ([]byte, error)

// A modelCache holds the upstream's model lists. The process keeps a copy in
// front of the store, where replicas share theirs.
//
//   - A list younger than MODELS_CACHE_TTL is served as it is.
//   - An older one is served at once too, as stale, while one refresh runs in
//     the background. When that fails the old list stays, and the next refresh
//     waits a few seconds.
//   - With nothing to serve, or a time to live of 0, callers wait for the
//     refresh, all for the same one. A time to live of 0 falls back on the last
//     list, as stale, when the refresh fails.
//   - Errors are never kept: with nothing to serve, the next caller asks again.
//
// A failing store is as good as an empty one.
type modelCache struct {
	store   Store
	fetch   fetchModels
	log     *slog.Logger
	ttl     time.Duration
	aliases []modelAlias
	prefix  string     // of store keys
	static  *modelList // MODELS_STATIC; nil asks the upstream
	limit   int        // of bytes

	hits, stale, misses atomic.Uint64 // what Get's callers were served
	warmed              atomic.Int64  // Unix time of the last warm

	base context.Context // of every refresh
	stop context.CancelCauseFunc

	mu     sync.Mutex
	scopes map[string]*modelScope
	recent *list.List // scopes that have a list, the one used last in front
	bytes  int        // held by them, about
}

// A modelScope is the list of one group of clients. It is in the cache while it
// has a list or a refresh.
type modelScope struct {
	name    string
	list    *modelList // nil before the first one arrived
	place   *list.Element
	refresh *modelRefresh // the one under way
	retryAt time.Time     // no refresh before that: the last one failed
}

// A modelRefresh is one attempt at a new list, which any number of callers wait
// for. Its other fields are set when done is closed.
type modelRefresh struct {
	done  chan struct{}
	list  *modelList // nil when there is none at all
	stale bool
	err   error
}

// newModelCache makes an empty cache. Its refreshes end by themselves, at the
// latest after modelsFetchTimeout, or with Close.
func newModelCache(store Store, fetch fetchModels, cfg *config, log *slog.Logger) *modelCache {
	c := &modelCache{
		store:   store,
		fetch:   fetch,
		log:     log,
		ttl:     cfg.ModelsTTL,
		aliases: cfg.Aliases,
		prefix:  modelsPrefix(cfg),
		limit:   maxModelCacheBytes,
		scopes:  make(map[string]*modelScope),
		recent:  list.New(),
	}
	c.base, c.stop = context.WithCancelCause(context.Background())
	if len(cfg.ModelsStatic) > 0 {
		c.static = c.newList(staticModels(cfg.ModelsStatic), time.Now())
	}
	return c
}

// modelsPrefix keeps the lists of two upstreams apart in one store: after a
// change of address the old upstream's list is no stale copy of the new one's.
func modelsPrefix(cfg *config) string {
	if cfg.BaseURL == nil {
		return "models:"
	}
	sum := sha256.Sum256([]byte(cfg.BaseURL.String()))
	return "models:" + hex.EncodeToString(sum[:4]) + ":"
}

// Close ends the refreshes under way. Lists at hand are still served.
func (c *modelCache) Close() { c.stop(errShutdown) }

// Get returns the model list of a scope: "" is the list that all clients share,
// a hash of the client's key is that client's own. key is what a refresh shows
// the upstream in mode passthrough. stale says that the list is older than
// MODELS_CACHE_TTL, or that the refresh that this call waited for has failed.
//
// Get waits only when it has no list, no longer than modelsFetchTimeout and no
// longer than ctx; leaving does not disturb others who wait. Its error is
// ctx's or the upstream's.
func (c *modelCache) Get(ctx context.Context, scope string, key secret) (models *modelList, stale bool, err error) {
	if c.static != nil {
		return c.static, false, nil
	}
	held, refresh := c.look(scope, key)
	if refresh == nil {
		stale := !c.fresh(held)
		if stale {
			c.stale.Add(1)
		} else {
			c.hits.Add(1)
		}
		return held, stale, nil
	}
	c.misses.Add(1)
	select {
	case <-refresh.done:
	case <-ctx.Done():
		return nil, false, context.Cause(ctx)
	}
	if refresh.list == nil {
		return nil, false, refresh.err
	}
	return refresh.list, refresh.stale, nil
}

// look returns either the list to serve or the refresh to wait for, and starts
// a refresh when one is due.
func (c *modelCache) look(scope string, key secret) (*modelList, *modelRefresh) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.scopes[scope]
	if s == nil {
		s = &modelScope{name: scope}
		c.scopes[scope] = s
	}
	if s.list != nil {
		c.recent.MoveToFront(s.place)
		if c.fresh(s.list) {
			return s.list, nil
		}
	}
	if s.refresh == nil && !time.Now().Before(s.retryAt) {
		c.start(s, key)
	}
	if s.list != nil && (c.ttl > 0 || s.refresh == nil) {
		return s.list, nil
	}
	return nil, s.refresh
}

// known is a model by the name under which it counts: one of the list at hand, an
// alias, or the model that a pattern among the aliases leads to; "" for any other.
// It never waits.
func (c *modelCache) known(scope, name string) string {
	if l := c.held(scope); l != nil {
		if m, ok := l.find(name); ok {
			return m.ID
		}
	}
	for _, a := range c.aliases {
		switch {
		case a.Pattern == name:
			return a.Pattern
		case matchesPattern(a.Pattern, name):
			return a.Model
		}
	}
	return ""
}

// held is the list of a scope that is at hand, nil for none.
func (c *modelCache) held(scope string) *modelList {
	if c.static != nil {
		return c.static
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.scopes[scope]; s != nil {
		return s.list
	}
	return nil
}

// warm refreshes the shared list if it is not fresh, in the background. An upstream
// that has none is not asked more often than one whose list has grown old.
func (c *modelCache) warm() {
	now, last := time.Now().Unix(), c.warmed.Load()
	if c.static != nil || now-last < int64(max(c.ttl, time.Minute).Seconds()) || !c.warmed.CompareAndSwap(last, now) {
		return
	}
	c.look("", "")
}

func (c *modelCache) fresh(l *modelList) bool { return time.Since(l.Fetched) < c.ttl }

// start runs a refresh of s, which has none; mu is held.
func (c *modelCache) start(s *modelScope, key secret) {
	r := &modelRefresh{done: make(chan struct{})}
	s.refresh = r
	held := s.list
	go func() {
		ctx, cancel := context.WithTimeout(c.base, modelsFetchTimeout)
		defer cancel()
		l, err := c.load(ctx, s.name, key, held)
		if err != nil && held != nil && c.base.Err() == nil {
			c.log.Warn("model list not refreshed", "err", err)
		}
		c.finish(s, key, l, err)
	}()
}

// load finds a list newer than held: one that another replica has stored, else
// the upstream's. With nothing held, a stored list of any age is better than
// waiting. When the upstream fails, what was stored comes with the error.
func (c *modelCache) load(ctx context.Context, scope string, key secret, held *modelList) (*modelList, error) {
	stored, storeErr := c.readStore(ctx, scope)
	if stored != nil && (c.fresh(stored) || held == nil && c.ttl > 0) {
		return stored, nil
	}
	models, err := c.ask(ctx, scope, key)
	if err != nil {
		return stored, err
	}
	fetched := time.Now()
	if storeErr == nil {
		c.writeStore(ctx, scope, models, fetched)
	}
	return c.newList(models, fetched), nil
}

// ask is the upstream's list, or an *apiError.
func (c *modelCache) ask(ctx context.Context, scope string, key secret) ([]model, error) {
	body, err := c.fetch(ctx, scope, key)
	if err != nil {
		return nil, asAPIError(ctx, err)
	}
	models, err := normaliseModels(body)
	if err != nil {
		return nil, upstreamFailure(http.StatusBadGateway, "upstream_malformed", "the upstream's model list can't be used: "+err.Error(), nil)
	}
	return models, nil
}

// finish ends the refresh of s with what load found.
func (c *modelCache) finish(s *modelScope, key secret, l *modelList, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := s.refresh
	s.refresh = nil
	if err != nil {
		s.retryAt = time.Now().Add(c.backoff())
	}
	first := s.list == nil
	if l != nil && (first || err == nil || l.Fetched.After(s.list.Fetched)) {
		c.keep(s, l)
	}
	if s.list == nil {
		delete(c.scopes, s.name)
	}
	old := s.list != nil && c.ttl > 0 && !c.fresh(s.list)
	r.list, r.stale, r.err = s.list, old || err != nil, err
	close(r.done)
	if first && old && err == nil {
		c.start(s, key) // an old list out of the store is for now, not for the next caller
	}
}

// backoff is the pause after a failed refresh: no longer than it would take
// until the next one if all was well.
func (c *modelCache) backoff() time.Duration {
	return min(max(c.ttl, time.Second), modelsMaxBackoff)
}

// keep makes l the list of s, at the cost of the scopes used longest ago. One
// with a refresh under way stays, so that its end finds it.
func (c *modelCache) keep(s *modelScope, l *modelList) {
	if s.list == nil {
		s.place = c.recent.PushFront(s)
	} else {
		c.bytes -= s.list.size()
	}
	s.list = l
	c.bytes += l.size()
	var before *list.Element
	for e := c.recent.Back(); e != nil && (c.recent.Len() > maxModelScopes || c.bytes > c.limit); e = before {
		before = e.Prev()
		if old := e.Value.(*modelScope); old != s && old.refresh == nil {
			c.recent.Remove(e)
			delete(c.scopes, old.name)
			c.bytes -= old.list.size()
		}
	}
}

// readStore returns the stored list, or nil when there is none that can be read.
// The error says that the store is in trouble.
func (c *modelCache) readStore(ctx context.Context, scope string) (*modelList, error) {
	value, err := c.store.Get(ctx, c.prefix+scope)
	if errors.Is(err, errNotFound) {
		return nil, nil
	}
	if err != nil {
		c.log.Debug("model list not read from the store", "err", err)
		return nil, err
	}
	models, fetched, err := decodeStoredModels(value)
	if err != nil {
		c.log.Debug("stored model list not understood", "err", err)
		return nil, nil
	}
	// Replicas' clocks differ a little. One that was far ahead, and was set right
	// since, must not keep its list fresh until then.
	if time.Until(fetched) > c.ttl {
		fetched = time.Time{}
	}
	return c.newList(models, fetched), nil
}

func (c *modelCache) writeStore(ctx context.Context, scope string, models []model, fetched time.Time) {
	value := encodeStoredModels(models, fetched)
	if err := c.store.Set(ctx, c.prefix+scope, value, c.ttl+modelsKeep); err != nil {
		c.log.Debug("model list not written to the store", "err", err)
	}
}

// encodeStoredModels is the form of a list in the store: an OpenAI list and when
// it was fetched, in Unix milliseconds. Aliases are not in it; they are this
// process's own.
func encodeStoredModels(models []model, fetched time.Time) []byte {
	dst := append([]byte(nil), `{"fetched":`...)
	dst = strconv.AppendInt(dst, fetched.UnixMilli(), 10)
	dst = append(dst, `,"data":`...)
	return append(appendModels(dst, models), '}')
}

func decodeStoredModels(value []byte) ([]model, time.Time, error) {
	models, err := normaliseModels(value)
	if err != nil {
		return nil, time.Time{}, err
	}
	ms, err := strconv.ParseInt(string(member(value, "fetched")), 10, 64)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("fetched: %w", err)
	}
	return models, time.UnixMilli(ms), nil
}

// handleModels serves GET /models.
func (s *server) handleModels(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	models, err := s.listModels(w, r)
	if err != nil {
		writeError(w, x, err)
		return
	}
	switch x.dialect {
	case &anthropic:
		writeJSON(w, http.StatusOK, anthropicModels(models.Models, r.URL.Query()))
	case &gemini:
		writeJSON(w, http.StatusOK, geminiModels(models.Models, r.URL.Query()))
	default:
		writeModels(w, models.Body)
	}
}

// handleModel serves GET /models/{id}, where the id may contain slashes, plain
// or escaped.
func (s *server) handleModel(w http.ResponseWriter, r *http.Request) {
	x, id := exchangeOf(r), r.PathValue("id")
	models, err := s.listModels(w, r)
	if err != nil {
		writeError(w, x, err)
		return
	}
	m, ok := models.find(id)
	switch {
	case !ok && x.dialect == &anthropic:
		writeError(w, x, anthropicNoModel(id))
	case !ok && x.dialect == &gemini:
		e := modelNotFound(id)
		e.Message = "models/" + id + " is not found"
		writeError(w, x, e)
	case !ok:
		writeError(w, x, modelNotFound(id))
	case x.dialect == &anthropic:
		writeJSON(w, http.StatusOK, anthropicModel(m))
	case x.dialect == &gemini:
		writeJSON(w, http.StatusOK, geminiModel(m))
	default:
		writeModels(w, m.Raw)
	}
}

// listModels is the list that the client of r may see. It sets
// X-APIProxy-Models when the list is stale.
func (s *server) listModels(w http.ResponseWriter, r *http.Request) (*modelList, error) {
	scope, key := "", secret("")
	if s.keys.mode == authPassthrough {
		cred := exchangeOf(r).cred
		scope, key = cred.Owner, cred.Key
	}
	models, stale, err := s.models.Get(r.Context(), scope, key)
	if stale {
		w.Header().Set("X-APIProxy-Models", "stale")
	}
	return models, err
}

// modelNotFound is OpenAI's answer to an id that is not in the list.
func modelNotFound(id string) *apiError {
	return &apiError{
		Status: http.StatusNotFound, Type: "invalid_request_error", Code: "model_not_found", Param: "model", NoRetry: true,
		Message: fmt.Sprintf("The model '%s' does not exist", id),
	}
}

func writeModels(w http.ResponseWriter, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

// A modelList is what clients get to see. It never changes.
type modelList struct {
	Models  []model
	Body    []byte    // the list in OpenAI's shape, ready to send
	Fetched time.Time // when the upstream sent it
	index   map[string]int
}

// newList adds the aliases to the upstream's models.
func (c *modelCache) newList(models []model, fetched time.Time) *modelList {
	models = withAliases(models, c.aliases)
	l := &modelList{
		Models:  models,
		Body:    encodeOpenAIModels(models),
		Fetched: fetched,
		index:   make(map[string]int, len(models)),
	}
	for i := range models {
		l.index[models[i].ID] = i
	}
	return l
}

func (l *modelList) find(id string) (model, bool) {
	i, ok := l.index[id]
	if !ok {
		return model{}, false
	}
	return l.Models[i], true
}

// size is about what the list takes in memory, in bytes: its text twice, and for
// each model its struct, its id and its place in the index.
func (l *modelList) size() int { return 2*len(l.Body) + 160*len(l.Models) }

// A model is one entry of a model list.
type model struct {
	ID      string
	Created int64 // Unix seconds; 0 when the upstream did not say
	OwnedBy string
	// Raw is the entry in OpenAI's shape: the upstream's own object, whatever
	// else it has in it. It is changed only where id, object, created or owned_by
	// is missing or of the wrong type.
	Raw []byte
}

// Values of owned_by where the upstream names no owner.
const (
	ownedByUpstream = "upstream" // a model of the upstream
	ownedByGateway  = "apiproxy" // an alias of a model that the upstream does not list
)

// newModel is an entry of which nothing but its name is known.
func newModel(id, ownedBy string) model {
	m := model{ID: id, OwnedBy: ownedBy}
	m.Raw = withMembers(nil, modelMembers(appendQuoted(nil, id), []byte(`"model"`), []byte("0"), appendQuoted(nil, ownedBy)))
	return m
}

func staticModels(ids []string) []model {
	var models []model
	seen := make(map[string]bool, len(ids))
	for _, id := range ids {
		if usableModelID(id) && !seen[id] {
			seen[id] = true
			models = append(models, newModel(id, ownedByUpstream))
		}
	}
	return models
}

// withAliases adds an entry for each alias that is one name and not a pattern,
// unless there is a model of that name. It looks like its target's entry, whose
// context length and the like are true of the alias as well.
func withAliases(models []model, aliases []modelAlias) []model {
	byID := make(map[string]model, len(models)+len(aliases))
	for _, m := range models {
		byID[m.ID] = m
	}
	for _, a := range aliases {
		if _, taken := byID[a.Pattern]; taken || strings.Contains(a.Pattern, "*") || !usableModelID(a.Pattern) {
			continue
		}
		m := newModel(a.Pattern, ownedByGateway)
		if target, ok := byID[a.Model]; ok {
			m.Created, m.OwnedBy = target.Created, target.OwnedBy
			m.Raw = withMembers(target.Raw, []modelMember{{"id", appendQuoted(nil, a.Pattern)}})
		}
		byID[a.Pattern] = m
		models = append(models, m)
	}
	return models
}

// normaliseModels reads the model list of an upstream. It takes OpenAI's
// {"data":[…]}, {"models":[…]} and a bare array; the entries may be strings or
// objects that name themselves by id, name or model, and either list may also be
// an object with the ids as keys. Entries without a usable id are left out, and
// of two with one id the first stays.
func normaliseModels(body []byte) ([]model, error) {
	if len(body) > maxModelsBytes {
		return nil, fmt.Errorf("it is longer than %d MiB", maxModelsBytes>>20)
	}
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	if !utf8.Valid(body) {
		body = bytes.ToValidUTF8(body, []byte("\uFFFD"))
	}
	body = bytes.TrimSpace(body)
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	listed := modelArray(body)
	models, entries, err := readModels(listed)
	switch {
	case err != nil:
		return nil, err
	case len(models) > 0:
		return models, nil
	case hasErrorObject(body):
		return nil, errors.New("it is an error object")
	case listed == nil:
		return nil, errors.New(`it has neither "data" nor "models" and is no array`)
	case entries > 0:
		return nil, fmt.Errorf("none of its %d entries has an id", entries)
	}
	return models, nil
}

// modelArray finds the value that holds the models: an array, an object, or the
// null that some servers send for an empty list. It is nil when there is none.
func modelArray(body []byte) []byte {
	if isArray(body) {
		return body
	}
	var found []byte
	for _, key := range []string{"data", "models"} {
		switch v := member(body, key); {
		case isArray(v), isObject(v):
			return v
		case v != nil && isNull(v):
			found = v
		}
	}
	return found
}

// readModels reads the entries of a list; entries counts the unusable ones too.
func readModels(listed []byte) (models []model, entries int, err error) {
	seen := make(map[string]bool)
	add := func(key string, v []byte) bool {
		entries++
		if m, ok := readModel(key, v); ok && !seen[m.ID] {
			seen[m.ID] = true
			models = append(models, m)
		}
		return len(models) <= maxModels
	}
	if isObject(listed) {
		for k, v := range members(listed) {
			if isObject(v) && !add(unquote(k), v) {
				break
			}
		}
	} else {
		for v := range elements(listed) {
			if !add("", v) {
				break
			}
		}
	}
	if len(models) > maxModels {
		return nil, entries, fmt.Errorf("it has more than %d entries", maxModels)
	}
	return models, entries, nil
}

// readModel reads one entry; key is its own in a list with the ids as keys, else
// empty. It is false for an entry without a usable id.
func readModel(key string, v []byte) (model, bool) {
	if isString(v) {
		id := text(v)
		return newModel(id, ownedByUpstream), usableModelID(id)
	}
	e := readModelEntry(v)
	m := model{ID: e.modelID(key), OwnedBy: ownedByUpstream, Raw: v}
	if !usableModelID(m.ID) {
		return model{}, false
	}
	complete := !e.repeated
	if text(e.id) != m.ID {
		e.id, complete = appendQuoted(nil, m.ID), false
	}
	if !isString(e.object) {
		e.object, complete = []byte(`"model"`), false
	}
	var whole bool
	if m.Created, whole = e.createdAt(); !whole {
		e.created, complete = strconv.AppendInt(nil, m.Created, 10), false
	}
	if isString(e.ownedBy) {
		m.OwnedBy = text(e.ownedBy)
	} else {
		e.ownedBy, complete = appendQuoted(nil, m.OwnedBy), false
	}
	if !complete {
		m.Raw = withMembers(v, modelMembers(e.id, e.object, e.created, e.ownedBy))
	}
	return m, true
}

// A modelEntry is the raw values that matter in an upstream's entry.
type modelEntry struct {
	id, name, model []byte
	object, ownedBy []byte
	created, madeAt []byte
	repeated        bool // one of them is there twice; the last counts
}

func readModelEntry(obj []byte) modelEntry {
	var e modelEntry
	for k, v := range members(obj) {
		var to *[]byte
		switch unquote(k) {
		case "id":
			to = &e.id
		case "name":
			to = &e.name
		case "model":
			to = &e.model
		case "object":
			to = &e.object
		case "owned_by":
			to = &e.ownedBy
		case "created":
			to = &e.created
		case "created_at":
			to = &e.madeAt
		default:
			continue
		}
		e.repeated = e.repeated || *to != nil
		*to = v
	}
	return e
}

// modelID is the first usable of the names that an entry goes by. Gemini writes
// its names as models/NAME.
func (e *modelEntry) modelID(key string) string {
	name := strings.TrimPrefix(text(e.name), "models/")
	for _, id := range []string{text(e.id), key, name, text(e.model)} {
		if usableModelID(id) {
			return id
		}
	}
	return ""
}

// createdAt is the time of creation in Unix seconds, 0 if unknown. whole says
// that the entry has it as the integer that clients expect.
func (e *modelEntry) createdAt() (seconds int64, whole bool) {
	if n, err := strconv.ParseInt(string(e.created), 10, 64); err == nil {
		return n, true
	}
	for _, v := range [][]byte{e.created, e.madeAt} {
		s := string(v)
		if isString(v) {
			s = text(v)
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < 1<<53 {
			return int64(f), false
		}
		if t, err := time.Parse(time.RFC3339, s); err == nil {
			return t.Unix(), false
		}
	}
	return 0, false
}

// usableModelID says whether a client could name the model in a request.
func usableModelID(id string) bool {
	return len(id) <= maxModelID && strings.TrimSpace(id) != "" && !strings.ContainsFunc(id, unicode.IsControl)
}

// hasErrorObject says whether body, or the first element of it, is an error and
// not a list (dialects E-60).
func hasErrorObject(body []byte) bool {
	for v := range elements(body) {
		body = v
		break
	}
	failure := member(body, "error")
	return isObject(failure) || text(failure) != "" || text(member(body, "object")) == "error"
}

// A modelMember is one member of a model's object; value is raw JSON.
type modelMember struct {
	key   string
	value []byte
}

// modelMembers are those that every entry has in OpenAI's shape.
func modelMembers(id, object, created, ownedBy []byte) []modelMember {
	return []modelMember{{"id", id}, {"object", object}, {"created", created}, {"owned_by", ownedBy}}
}

// withMembers is obj with the given members in front, in place of its own of
// the same keys. The others keep their bytes.
func withMembers(obj []byte, put []modelMember) []byte {
	dst := append(make([]byte, 0, len(obj)+96), '{')
	replaced := make(map[string]bool, len(put))
	for _, m := range put {
		replaced[m.key] = true
		dst = append(append(append(dst, '"'), m.key...), `":`...)
		dst = append(append(dst, m.value...), ',')
	}
	for k, v := range members(obj) {
		if !replaced[unquote(k)] {
			dst = append(append(append(dst, '"'), k...), `":`...)
			dst = append(append(dst, v...), ',')
		}
	}
	dst[len(dst)-1] = '}'
	return dst
}

// encodeOpenAIModels is GET /v1/models as OpenAI answers it.
func encodeOpenAIModels(models []model) []byte {
	dst := append([]byte(nil), `{"object":"list","data":`...)
	return append(appendModels(dst, models), '}')
}

func appendModels(dst []byte, models []model) []byte {
	dst = append(dst, '[')
	for i := range models {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, models[i].Raw...)
	}
	return append(dst, ']')
}
