package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A server is the gateway: its dependencies, and the handlers on them.
type server struct {
	cfg      *config
	log      *slog.Logger
	store    Store
	watch    *storeWatch
	keys     *keyring
	forwards *headerSet

	disguises, signature http.Header // of every request to the upstream; shared, so not to be changed

	mask     *mask
	models   *modelCache
	metrics  *metrics
	sessions *sessions
	status   *statusBook
	upstream *upstream
	proxy    *httputil.ReverseProxy
	streams  *httputil.ReverseProxy // the same for chat streams
	mux      *http.ServeMux

	replays     *replays
	calibration calibration
	lacks       lacks

	started  time.Time
	draining atomic.Bool
	inFlight atomic.Int64
}

func newServer(cfg *config, store Store, log *slog.Logger) *server {
	m := newMetrics()
	store = measuredStore{store, &m.store}
	s := &server{
		cfg: cfg, log: log, store: store, metrics: m,
		keys: newKeyring(cfg), forwards: forwardedHeaders(cfg), disguises: disguises(cfg), signature: signature(cfg), mask: newMask(cfg), sessions: newSessions(store, log), status: newStatusBook(),
		upstream: newUpstream(cfg), mux: http.NewServeMux(), started: time.Now(),
	}
	s.replays, s.upstream.rewrite = newReplays(store), s.rewrite
	s.models = newModelCache(store, s.fetchModels, cfg, log)
	s.proxy, s.streams = s.newProxy(copyBuffer), s.newProxy(streamBuffer)
	s.watch = watchStore(store, log)
	s.routes()
	return s
}

// StartDraining refuses new requests from now on; those in flight go on.
func (s *server) StartDraining() { s.draining.Store(true) }

// Close writes the turns that still wait for the store, for as long as ctx
// allows, and stops the background work.
func (s *server) Close(ctx context.Context) error {
	s.watch.Close()
	s.models.Close()
	if lost := s.sessions.Close(ctx); lost > 0 {
		s.log.Error("turns are lost: the store did not come back in time", "turns", lost)
	}
	s.upstream.transport.CloseIdleConnections()
	return nil
}

// A route is one line of the tables that follow.
type route struct {
	method, path string
	handle       http.HandlerFunc
}

// routes fills the mux: what is open, what takes a key, and the rest.
func (s *server) routes() {
	s.serve(func(open http.HandlerFunc) http.HandlerFunc { return open }, []route{
		{"GET", "/{$}", s.handlePlayground},
		{"GET", "/health", s.handleHealth},
		{"GET", "/ready", s.handleReady},
	})
	s.serve(s.authed, []route{
		{"POST", "/v1/chat/completions", s.handleChat},
		{"GET", "/v1/models", s.handleModels},
		{"GET", "/v1/models/{id...}", s.handleModel},
		{"DELETE", "/v1/models/{id...}", s.handleForward},
		{"POST", "/v1/models/{id...}", s.handleGemini},
		{"GET", "/v1beta/models", s.handleModels},
		{"GET", "/v1beta/models/{id...}", s.handleModel},
		{"POST", "/v1beta/models/{id...}", s.handleGemini},
		{"GET", "/v1alpha/models", s.handleModels},
		{"GET", "/v1alpha/models/{id...}", s.handleModel},
		{"POST", "/v1alpha/models/{id...}", s.handleGemini},
		{"POST", "/v1/messages", s.handleMessages},
		{"POST", "/v1/messages/count_tokens", s.handleCountTokens},
		{"POST", "/v1/responses", s.handleResponses},
		{"POST", "/v1/responses/input_tokens", s.handleInputTokens},
		{"POST", "/v1/responses/compact", s.storedHere(s.handleCompactResponse)},
		{"GET", "/v1/responses/{id}", s.storedHere(s.handleGetResponse)},
		{"DELETE", "/v1/responses/{id}", s.storedHere(s.handleDeleteResponse)},
		{"GET", "/v1/responses/{id}/input_items", s.storedHere(s.handleInputItems)},
		{"POST", "/v1/responses/{id}/cancel", s.storedHere(s.handleCancelResponse)},
		{"GET", "/status", s.handleStatus},
		{"GET", "/metrics", s.handleMetrics},
		{"GET", "/context/{session_id...}", s.handleContext},
		{"DELETE", "/context/{session_id...}", s.handleDeleteContext},
	})
	s.mux.HandleFunc("/v1/{path...}", s.authed(s.handleForward))
	s.mux.HandleFunc("/v1/messages/{path...}", s.authed(s.handleUnderMessages))
	// Named, or the mux would redirect them to themselves with a slash.
	for _, path := range []string{"/v1", "/context", "/"} {
		s.mux.HandleFunc(path, s.authed(handleUnknown))
	}
}

// serve adds routes behind a guard. Another method on their paths is 405, named
// by the methods that there are.
func (s *server) serve(guard func(http.HandlerFunc) http.HandlerFunc, table []route) {
	allowed := map[string][]string{}
	for _, rt := range table {
		s.mux.HandleFunc(rt.method+" "+rt.path, guard(rt.handle))
		allowed[rt.path] = append(allowed[rt.path], rt.method)
		if rt.method == "GET" {
			allowed[rt.path] = append(allowed[rt.path], "HEAD")
		}
	}
	for path, methods := range allowed {
		slices.Sort(methods)
		if strings.HasPrefix(path, "/v1/responses/") && !strings.Contains(path, "{") {
			continue // to other methods, the name stands for a response's id
		}
		s.mux.HandleFunc(path, guard(refuseMethod(strings.Join(methods, ", "))))
	}
}

// Handler is the gateway as the outside sees it.
func (s *server) Handler() http.Handler { return s.logged(s.admitted(s.dispatch)) }

// dispatch serves a request whose path has been made canonical.
func (s *server) dispatch(w http.ResponseWriter, r *http.Request) {
	defer func() {
		x := exchangeOf(r)
		x.route = r.Pattern
		if _, path, ok := strings.Cut(r.Pattern, " "); ok {
			x.route = path
		}
		if b, ok := r.Body.(*clientBody); ok {
			b.Close()
		}
	}()
	s.mux.ServeHTTP(w, r)
}

// admitted decides, before anything else is looked at, whether a request is
// taken: what it is, whether the gateway is going down, and the load.
func (s *server) admitted(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r)
		if s.answerCORS(w, r) {
			return
		}
		if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
			w.Header().Set("Connection", "close")
			refuseMethod(everyMethod)(w, r)
			return
		}
		r, refused := servable(r)
		x.cfg, x.header = s.cfg, r.Header
		if refused == nil {
			x.dialect = dialectOf(r)
		}
		if x.dialect == &anthropic {
			w.Header().Set("Request-Id", x.id) // the name that its SDKs read
		}
		if refused == nil && (r.URL.Path == "/health" || r.URL.Path == "/ready") {
			next(w, r)
			return
		}
		if refused == nil && s.draining.Load() {
			refused = drainingError()
		}
		if refused == nil && crowded(r.Header) {
			refused = &apiError{
				Status: http.StatusRequestHeaderFieldsTooLarge, Type: "invalid_request_error", Code: "too_many_headers", NoRetry: true,
				Message: "the request has more than " + strconv.Itoa(maxHeaders) + " header lines; send fewer",
			}
		}
		if refused != nil || ambiguous(r) {
			w.Header().Set("Connection", "close")
		}
		if refused != nil {
			writeError(w, x, refused)
			return
		}
		if r.URL.Path == "/" { // the page costs nothing, and is there when nothing else is
			next(w, r)
			return
		}
		defer s.inFlight.Add(-1)
		if n := s.inFlight.Add(1); s.cfg.MaxConcurrent > 0 && n > int64(s.cfg.MaxConcurrent) {
			writeError(w, x, overloadedError())
			return
		}
		next(w, r)
	}
}

// servable is the request with its path in canonical form, or why nobody serves
// it.
func servable(r *http.Request) (*http.Request, *apiError) {
	path, err := canonicalPath(r.URL.EscapedPath())
	if err != nil {
		return r, err
	}
	r = withPath(r, path)
	if !asksForWebSocket(r.Header) {
		return r, nil
	}
	status := http.StatusBadRequest
	if path == "/v1/responses" {
		status = http.StatusUpgradeRequired // agents fall back to plain HTTP at once on this one (dialects D-8)
	}
	return r, &apiError{
		Status: status, Type: "invalid_request_error", Code: "upgrade_not_supported", NoRetry: true,
		Message: "this gateway does not serve WebSocket; send the request over plain HTTP",
	}
}

// maxHeaders is how many header lines a request may have; clients send some
// thirty.
const maxHeaders = 256

func crowded(h http.Header) bool {
	lines := 0
	for _, values := range h {
		lines += len(values)
	}
	return lines > maxHeaders
}

// ambiguous says whether another reader may see the end of the request elsewhere.
// net/http takes the chunked coding though a length stands beside it, passes over
// any coding in HTTP/1.0, and does not tell; then the connection must not be used
// again (RFC 9112, section 6.1).
func ambiguous(r *http.Request) bool {
	return r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0)
}

func asksForWebSocket(h http.Header) bool {
	if len(h["Upgrade"]) == 0 {
		return false
	}
	for protocol := range strings.SplitSeq(strings.Join(h["Upgrade"], ","), ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(protocol), "/")
		if strings.EqualFold(name, "websocket") {
			return true
		}
	}
	return false
}

// everyMethod is what some path or other takes.
const everyMethod = "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"

// answerCORS sets the headers that browsers ask for, if CORS_ORIGINS allows the
// origin, and answers a preflight, which carries no key.
func (s *server) answerCORS(w http.ResponseWriter, r *http.Request) (answered bool) {
	origin := r.Header.Get("Origin")
	if origin == "" || len(s.cfg.CORSOrigins) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	if !slices.Contains(s.cfg.CORSOrigins, "*") && !slices.Contains(s.cfg.CORSOrigins, origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "*")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", everyMethod)
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// vendorPrefixes may stand before any path: clients differ in what they append
// to a base address.
var vendorPrefixes = [...]string{"/openai", "/anthropic", "/gemini"}

// apiRoots are the first steps of OpenAI paths that are served without their
// /v1 too.
var apiRoots = []string{
	"assistants", "audio", "batches", "chat", "completions", "containers", "conversations", "edits", "embeddings",
	"engines", "evals", "files", "fine_tuning", "images", "messages", "models", "moderations", "rerank", "responses",
	"score", "threads", "uploads", "vector_stores", "videos",
}

// canonicalPath is the one path that an escaped request path stands for: its
// vendor prefix taken off, its /v1 put on. A path that two readers could take
// for two different ones is refused.
func canonicalPath(escaped string) (string, *apiError) {
	switch escaped {
	case "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/models", "/v1/embeddings":
		return escaped, nil // most requests, and canonical
	}
	if !strings.HasPrefix(escaped, "/") || strings.Contains(escaped, "//") {
		return "", badPath()
	}
	path := escaped
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	for _, prefix := range vendorPrefixes {
		if rest, ok := strings.CutPrefix(path, prefix); ok && (rest == "" || rest[0] == '/') {
			path = rest
			break
		}
	}
	if path == "" || path == "/" {
		return "/", nil
	}
	opaque := strings.HasPrefix(path, "/context/") // its last step is a name of the client's, and goes nowhere
	for step := range strings.SplitSeq(path[1:], "/") {
		name, err := url.PathUnescape(step)
		if err != nil || !safeSegment(name) || !opaque && !safeSteps(name) {
			return "", badPath()
		}
	}
	for strings.HasPrefix(path, "/v1/v1/") {
		path = path[len("/v1"):]
	}
	first, _, _ := strings.Cut(path[1:], "/")
	if slices.Contains(apiRoots, first) {
		path = "/v1" + path
	}
	return path, nil
}

func badPath() *apiError {
	e := badRequest("", "the path is not in canonical form: no empty steps, no \".\" or \"..\", no control characters, encoded or not")
	e.Code = "invalid_path"
	return e
}

// safeSegment says whether a decoded step of a path means only itself.
func safeSegment(step string) bool {
	if step == "" || step == "." || step == ".." || strings.HasPrefix(step, "..;") || strings.HasPrefix(step, ".;") {
		return false
	}
	return strings.IndexFunc(step, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0
}

// safeSteps says whether a step still means only itself to a reader that takes
// encoded slashes for real ones, or decodes twice.
func safeSteps(step string) bool {
	for part := range strings.SplitSeq(strings.ReplaceAll(step, `\`, "/"), "/") {
		if !safeSegment(part) {
			return false
		}
	}
	if twice, err := url.PathUnescape(step); err == nil && twice != step {
		return safeSteps(twice)
	}
	return true
}

// withPath is the request with another path, given in escaped form.
func withPath(r *http.Request, escaped string) *http.Request {
	if escaped == r.URL.EscapedPath() {
		return r
	}
	u := *r.URL
	u.Path, _ = url.PathUnescape(escaped)
	u.RawPath = escaped
	r2 := *r
	r2.URL = &u
	return &r2
}

func refuseMethod(allow string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		writeError(w, exchangeOf(r), &apiError{
			Status: http.StatusMethodNotAllowed, Type: "invalid_request_error", Code: "method_not_allowed", NoRetry: true,
			Message: r.Method + " is not allowed here; this path takes " + allow,
		})
	}
}

func handleUnknown(w http.ResponseWriter, r *http.Request) {
	writeError(w, exchangeOf(r), &apiError{
		Status: http.StatusNotFound, Type: "invalid_request_error", Code: "unknown_url", NoRetry: true,
		Message: "unknown path: " + r.Method + " " + printable(r.URL.Path) + "; the API is under /v1, for example POST /v1/chat/completions and GET /v1/models",
	})
}

// health is the body of GET /health.
type health struct {
	Status  string `json:"status"` // "ok", or "degraded" while the store can't be reached
	Version string `json:"version"`
	Uptime  int64  `json:"uptime_s"`
	Store   string `json:"store"`
}

func (s *server) handleHealth(w http.ResponseWriter, r *http.Request) {
	status := "ok"
	if !s.watch.up() {
		status = "degraded"
	}
	writeJSON(w, http.StatusOK, health{status, version(), int64(time.Since(s.started).Seconds()), s.store.Name()})
}

func (s *server) handleReady(w http.ResponseWriter, r *http.Request) {
	status, code := "ready", http.StatusOK
	switch {
	case s.draining.Load():
		status, code = "draining", http.StatusServiceUnavailable
	case !s.watch.wasUp():
		status, code = "waiting for the store", http.StatusServiceUnavailable
	}
	writeJSON(w, code, struct {
		Status string `json:"status"`
	}{status})
}

// A storeWatch knows whether the store can be reached, without making anybody
// wait for it.
type storeWatch struct {
	now  atomic.Bool
	once atomic.Bool
	stop context.CancelFunc
}

const watchInterval = 2 * time.Second

// watchStore looks once before it returns, and from then on in the background.
func watchStore(store Store, log *slog.Logger) *storeWatch {
	ctx, cancel := context.WithCancel(context.Background())
	w := &storeWatch{stop: cancel}
	w.now.Store(true)
	w.look(ctx, store, log)
	go func() {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				w.look(ctx, store, log)
			}
		}
	}()
	return w
}

func (w *storeWatch) look(ctx context.Context, store Store, log *slog.Logger) {
	err := store.Ping(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		w.once.Store(true)
	}
	switch was := w.now.Swap(err == nil); {
	case was && err != nil:
		log.Warn("the store can't be reached; requests without a session go on", "store", store.Name(), "error", err)
	case !was && err == nil:
		log.Info("the store can be reached again", "store", store.Name())
	}
}

func (w *storeWatch) up() bool    { return w.now.Load() }
func (w *storeWatch) wasUp() bool { return w.once.Load() }
func (w *storeWatch) Close()      { w.stop() }
