package main

import (
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// The vendors' own paths. There the path says what dialect the body is in, and
// the answer is in the same.

// dialectOf is the dialect in which a request expects its answers, errors
// included; the path is canonical.
func dialectOf(r *http.Request) *dialect {
	path := r.URL.Path
	switch {
	case strings.HasPrefix(path, "/v1/messages"):
		return &anthropic
	case strings.HasPrefix(path, "/v1/responses"):
		return &responses
	case strings.HasPrefix(path, "/v1beta/"), strings.HasPrefix(path, "/v1alpha/"), strings.HasPrefix(path, "/upload/v1"):
		return &gemini
	case path == "/v1/models" || strings.HasPrefix(path, "/v1/models/"):
		switch {
		case r.Method == http.MethodPost && path != "/v1/models":
			return &gemini
		case len(r.Header["Anthropic-Version"]) > 0:
			return &anthropic
		case len(r.Header["X-Goog-Api-Key"]) > 0:
			return &gemini
		}
	}
	return &openai
}

// native says whether the upstream speaks a dialect itself.
func (s *server) native(name string) bool { return slices.Contains(s.cfg.NativeDialects, name) }

// readVendorBody reads a body that a dialect's path fixes the form of, and looks
// at its top level.
func (s *server) readVendorBody(w http.ResponseWriter, r *http.Request) ([]byte, peeked, error) {
	body, err := s.readBody(w, r)
	if err != nil {
		return nil, peeked{}, err
	}
	p, err := peek(body)
	if err != nil {
		return nil, p, badJSON(err)
	}
	return body, p, nil
}

// converted serves a path on which every body is in one dialect.
func (s *server) converted(from source) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		x := exchangeOf(r)
		x.chat = true
		body, _, err := s.readVendorBody(w, r)
		if err == nil {
			err = s.prepareConverted(r, x, from, body)
		}
		if err != nil {
			writeError(w, x, err)
			return
		}
		s.serveUpstream(w, r, "/chat/completions")
	}
}

// handleMessages serves POST /v1/messages.
func (s *server) handleMessages(w http.ResponseWriter, r *http.Request) {
	if s.native("messages") {
		s.serveNative(w, r, s.nativePath(r, "/messages"))
		return
	}
	s.converted(sourceAnthropic)(w, r)
}

// handleUnderMessages serves what else there is under /v1/messages, such as
// batches. It is the upstream's own; one that speaks Messages looks for its key
// where that dialect has it.
func (s *server) handleUnderMessages(w http.ResponseWriter, r *http.Request) {
	if x := exchangeOf(r); s.native("messages") {
		x.native, x.source = true, anthropic.name
	}
	s.handleForward(w, r)
}

// handleCountTokens serves POST /v1/messages/count_tokens.
func (s *server) handleCountTokens(w http.ResponseWriter, r *http.Request) {
	if s.native("messages") {
		s.countNative(w, r, "messages", s.nativePath(r, "/messages/count_tokens"), anthropicCount)
		return
	}
	s.count(w, r, anthropicCount)
}

// handleInputTokens serves POST /v1/responses/input_tokens.
func (s *server) handleInputTokens(w http.ResponseWriter, r *http.Request) {
	if s.native("responses") {
		s.countNative(w, r, "responses", s.nativePath(r, "/responses/input_tokens"), responsesCount)
		return
	}
	s.count(w, r, responsesCount)
}

// A counting is how a dialect asks for the tokens of a prompt, and is answered.
type counting struct {
	decode func(x *exchange, body []byte) (*chatRequest, error)
	view   func(n int64) any
}

var (
	anthropicCount = counting{decodeAnthropic, func(n int64) any {
		return struct {
			InputTokens int64 `json:"input_tokens"`
		}{n}
	}}
	responsesCount = counting{decodeResponsesCount, func(n int64) any {
		return struct {
			Object      string `json:"object"`
			InputTokens int64  `json:"input_tokens"`
		}{"response.input_tokens", n}
	}}
	geminiCounting = counting{decodeGeminiCount, geminiCount}
)

// count answers with the estimated tokens of a request's prompt.
func (s *server) count(w http.ResponseWriter, r *http.Request, c counting) {
	x := exchangeOf(r)
	body, _, err := s.readVendorBody(w, r)
	if err == nil && x.dialect == &responses {
		err = s.loadChain(x, body)
	}
	if err != nil {
		writeError(w, x, err)
		return
	}
	q, err := c.decode(x, body)
	if err != nil {
		writeError(w, x, err)
		return
	}
	kind := "exact"
	n, ok := s.exactTokens(x, q)
	if !ok {
		n, kind = s.calibration.correct(q.Model, q.promptTokens()), "estimate"
	}
	w.Header().Set("X-APIProxy-Token-Count", kind)
	writeJSON(w, http.StatusOK, c.view(n))
}

// countNative has the upstream count, if it speaks the dialect itself. Some that
// do can't count: then the estimate is the answer, since clients that ask for
// counts do so all the time, and a refusal says nothing of the model.
func (s *server) countNative(w http.ResponseWriter, r *http.Request, name string, to *url.URL, c counting) {
	x := exchangeOf(r)
	body, p, err := s.readVendorBody(w, r)
	if err != nil {
		writeError(w, x, err)
		return
	}
	estimate := func() any {
		q, err := c.decode(x, body)
		if err != nil {
			return nil // the upstream says what is wrong with it
		}
		return c.view(s.calibration.correct(q.Model, q.promptTokens()))
	}
	counts := name + ":" + text(p.value(body, fieldModel))
	if s.lacks.has(counts) {
		if answer := estimate(); answer != nil {
			w.Header().Set("X-APIProxy-Token-Count", "estimate")
			writeJSON(w, http.StatusOK, answer)
			return
		}
	}
	x.instead = func(status int) any {
		switch status {
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			s.lacks.note(counts)
			return estimate()
		}
		return nil
	}
	s.sendNative(w, r, to, body, &p)
}

// lacks remembers for a while what the upstream was found to lack, so that it is
// not asked again and again.
type lacks struct {
	mu    sync.Mutex
	until map[string]time.Time
}

const (
	lacksFor = 10 * time.Minute
	maxLacks = 1000
)

func (l *lacks) note(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.until) >= maxLacks || l.until == nil {
		l.until = map[string]time.Time{}
	}
	l.until[what] = time.Now().Add(lacksFor)
}

func (l *lacks) has(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Before(l.until[what])
}

// handleGemini serves POST …/models/{model}:{verb}.
func (s *server) handleGemini(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	_, rest, _ := strings.Cut(r.URL.EscapedPath(), "/models/")
	model, verb, ok := cutGeminiCall(rest)
	x.model = model
	if ok && s.native("gemini") && verb == "countTokens" {
		x.gemini = &geminiRequest{}
		s.countNative(w, r, "gemini", s.nativeGemini(r, model, verb), geminiCounting)
		return
	}
	if ok && s.native("gemini") {
		s.serveNative(w, r, s.nativeGemini(r, model, verb))
		return
	}
	switch {
	case ok && verb == "generateContent":
		x.gemini = &geminiRequest{}
	case ok && verb == "streamGenerateContent":
		x.gemini = &geminiRequest{Stream: true, SSE: r.URL.Query().Get("alt") == "sse"}
	case ok && verb == "countTokens":
		x.gemini = &geminiRequest{}
		s.count(w, r, geminiCounting)
		return
	default:
		writeError(w, x, &apiError{Status: http.StatusNotFound, Type: "invalid_request_error", Code: "unknown_method", NoRetry: true,
			Message: "unknown method; this gateway serves models/{model}:generateContent, :streamGenerateContent and :countTokens"})
		return
	}
	s.converted(sourceGemini)(w, r)
}

// storedHere serves the routes of a stored response. An upstream that
// speaks the dialect itself has stored it.
func (s *server) storedHere(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch native := s.native("responses"); {
		case native && r.PathValue("id") == "": // the body is a request, with a model
			s.serveNative(w, r, s.nativePath(r, strings.TrimPrefix(r.URL.EscapedPath(), "/v1")))
		case native:
			exchangeOf(r).native = true
			s.handleForward(w, r)
		default:
			handle(w, r)
		}
	}
}

// handleResponses serves POST /v1/responses.
func (s *server) handleResponses(w http.ResponseWriter, r *http.Request) {
	if s.native("responses") {
		s.serveNative(w, r, s.nativePath(r, "/responses"))
		return
	}
	s.converted(sourceResponses)(w, r)
}

// nativeKeys are the headers in which the dialects' own servers take a key.
var nativeKeys = map[string]string{anthropic.name: "X-Api-Key", gemini.name: "X-Goog-Api-Key"}

// serveNative passes a dialect that the upstream speaks itself through, byte for
// byte but for the model's alias.
func (s *server) serveNative(w http.ResponseWriter, r *http.Request, to *url.URL) {
	body, p, err := s.readVendorBody(w, r)
	if err != nil {
		writeError(w, exchangeOf(r), err)
		return
	}
	s.sendNative(w, r, to, body, &p)
}

func (s *server) sendNative(w http.ResponseWriter, r *http.Request, to *url.URL, body []byte, p *peeked) {
	x := exchangeOf(r)
	x.native, x.source = true, x.dialect.name
	x.stream = string(p.value(body, fieldStream)) == "true"
	var edits []edit
	if model := text(p.value(body, fieldModel)); model != "" {
		x.model = model
		edits = s.aliasEdit(model, p)
	}
	x.spliceChat(body, edits, nil, 0)
	w.Header().Set("X-APIProxy-Fidelity", string(x.fidelity))
	w.Header().Set("X-APIProxy-Dialect", x.source)
	s.sendTo(w, r, to)
}

// nativePath is the upstream's address for one of OpenAI's or Anthropic's paths.
func (s *server) nativePath(r *http.Request, path string) *url.URL {
	return s.upstream.url(path, cleanQuery(r.URL.RawQuery))
}

// nativeGemini is the upstream's address for a call of Gemini's. Those stand
// beside OpenAI's paths and not under their version.
func (s *server) nativeGemini(r *http.Request, model, verb string) *url.URL {
	if to, ok := s.cfg.alias(model); ok {
		model = to
	}
	version, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	to := s.upstream.beside("/" + version + "/models/" + model + ":" + verb)
	to.RawQuery = cleanQuery(r.URL.RawQuery)
	return to
}

// nativeVersion is the end of a base address that names a version of an API,
// and OpenAI's compatible form of it.
var nativeVersion = regexp.MustCompile(`/v[0-9]+[a-z0-9]*(/openai)?$`)
