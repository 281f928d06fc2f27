package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A dialect is one vendor's way of asking a model and being answered. The
// upstream speaks OpenAI chat completions, so chat is not a neutral middle
// format: it is the wire, and every other dialect is one hop from it.
type dialect struct {
	name string
	// decode turns a request body into a chat request; nil: the body is chat
	// already. What the answer depends on it leaves in the exchange.
	decode func(x *exchange, body []byte) (*chatRequest, error)
	// encode turns a whole answer into the dialect's; it is marshalled as it is.
	encode func(x *exchange, c *chatResponse) any
	// stream makes the encoder of one streamed answer.
	stream func(x *exchange) streamEncoder
	// fail renders an error: the status that the dialect's clients expect, and
	// the JSON body.
	fail func(e *apiError) (status int, body any)
	// failEvent appends the frame that ends a stream which has broken.
	failEvent func(dst []byte, e *apiError) []byte
	// ping is the keep-alive of a silent stream.
	ping string
}

// A streamEncoder writes one streamed answer in a dialect. It does no I/O: each
// method appends zero or more whole events to dst.
type streamEncoder interface {
	chunk(dst []byte, c *chatChunk) []byte // the upstream sent something
	finish(dst []byte) []byte              // it ended cleanly
	fail(dst []byte, e *apiError) []byte   // it broke, or sent an error
}

// An outcome is how an exchange ended, for the log.
type outcome string

const (
	outcomeOK            outcome = "ok"
	outcomeClientClosed  outcome = "client_closed"  // the client left first
	outcomeUpstreamError outcome = "upstream_error" // no answer, or an error for one
	outcomeIncomplete    outcome = "incomplete"     // the answer broke off after it had begun
)

// A fidelity says what happened to the request body on its way upstream.
type fidelity string

const (
	fidelityExact     fidelity = "exact"     // byte for byte
	fidelitySpliced   fidelity = "spliced"   // the same but for bytes put in or replaced
	fidelityConverted fidelity = "converted" // written anew from another dialect
)

// An exchange is what one request knows about itself, from its arrival to its
// log line. It is the one value in the request's context; handler, proxy and
// response readers all work on it, one after another.
type exchange struct {
	ctx    context.Context         // carries the exchange; ends when the client leaves or the gateway gives up
	cancel context.CancelCauseFunc // gives up, with the reason

	id      string // X-Request-Id
	trace   string // traceparent, as it came
	route   string // the pattern that matched
	dialect *dialect
	cred    credential
	start   time.Time

	chat       bool   // a chat completion, whose answer is read; all else is forwarded
	model      string // as the client named it
	stream     bool   // the client asked for a stream
	wantsUsage bool   // the client asked for usage in its stream
	hideUsage  bool   // the gateway asked for it
	session    *sessionTurn
	sent       http.Header // what goes upstream
	body       *lease      // of the buffer with the client's body
	payload    payload     // the body for the upstream; let go once no retry can need it
	shorter    func() bool // puts less of the session's history into the payload; false when there is none left
	history    *history    // what was put in; nil for none
	fidelity   fidelity
	dropped    []string // fields of the request with no counterpart in chat

	// Of a request that was converted from another dialect:
	cfg          *config
	header       http.Header       // the client's
	source       string            // the dialect of the body
	request      *chatRequest      // what it was converted to; let go with the payload
	toolNames    map[string]string // upstream's name of a tool -> the client's, where they differ
	promptTokens float64           // of the request, guessed
	estimate     int64             // the same, corrected by what the upstream counted before
	anthropic    *anthropicRequest // what the answer depends on, by dialect
	gemini       *geminiRequest
	responses    *responsesRequest
	signed       bool // the upstream has sent thought signatures, and wants them back
	native       bool // the upstream speaks the client's dialect itself

	instead func(status int) any // what the client gets in the place of such an error of the upstream's; nil for the error

	streaming bool      // the answer is a stream
	gaps      gapCounts // of the upstream's stream

	upstreamStatus int
	firstByte      time.Duration // from the start to the first byte of the upstream's stream, else to its headers; 0 = none came
	bytesIn        int64
	usage          usage
	outcome        outcome
	complete       bool   // the client was given the whole of a stream: leaving then is not leaving early
	failure        error  // what the log line says went wrong
	requestBody    []byte // the beginning of it, with LOG_BODIES
}

type exchangeKey struct{}

// newExchange makes the exchange of a request and the request that carries it.
func newExchange(r *http.Request) (*exchange, *http.Request) {
	x := &exchange{dialect: &openai, start: time.Now(), outcome: outcomeOK}
	ctx, cancel := context.WithCancelCause(r.Context())
	x.ctx, x.cancel = context.WithValue(ctx, exchangeKey{}, x), cancel
	return x, r.WithContext(x.ctx)
}

// exchangeOf is the exchange that a request belongs to.
func exchangeOf(r *http.Request) *exchange {
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	return x
}

// clientGone says whether the exchange ended because the client left, and not
// because the gateway gave up.
func (x *exchange) clientGone() bool {
	return x.ctx.Err() != nil && errors.Is(context.Cause(x.ctx), context.Canceled)
}

// fail notes for the log that the exchange ended with e.
func (x *exchange) fail(e *apiError) {
	e.RequestID = x.id
	x.failure = e
	if x.outcome == outcomeOK && (e.Type == "upstream_error" || e.Type == "timeout" || x.upstreamStatus != 0) {
		x.outcome = outcomeUpstreamError
	}
}

// breakOff notes for the log that the answer broke off after it had begun.
func (x *exchange) breakOff(err error) {
	x.failure = err
	x.outcome = outcomeIncomplete
	if x.clientGone() {
		x.outcome = outcomeClientClosed
	}
}

// wantsStream says whether the client asked for a stream: by the body's stream
// if it is there, else by an Accept that names event streams and not JSON.
func wantsStream(stream []byte, h http.Header) bool {
	if !isNull(stream) {
		return string(stream) == "true"
	}
	accept := strings.ToLower(strings.Join(h["Accept"], ","))
	return strings.Contains(accept, "text/event-stream") && !strings.Contains(accept, "application/json")
}

// handleChat serves POST /v1/chat/completions, for bodies in any dialect.
func (s *server) handleChat(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	x.chat = true
	body, err := s.readBody(w, r)
	if err == nil {
		err = s.readChat(r, x, body)
	}
	if err != nil {
		writeError(w, x, err)
		return
	}
	s.serveUpstream(w, r, "/chat/completions")
}

// readChat finds out what dialect a body on the chat path is in, and prepares
// it for the upstream.
func (s *server) readChat(r *http.Request, x *exchange, body []byte) error {
	p, err := peek(body)
	if err != nil {
		return badJSON(err)
	}
	from, err := detect(body, &p, r.Header)
	if err != nil {
		return err
	}
	x.source = from.name
	if from.decode != nil {
		return s.prepareConverted(r, x, from, body)
	}
	asked := p.value(body, fieldStream)
	x.stream = wantsStream(asked, r.Header)
	var edits []edit
	if x.stream && isNull(asked) {
		edits = append(edits, streamEdit(&p))
	}
	edits = append(edits, x.injectUsage(body, &p)...)
	err = s.prepareChat(r, x, body, &p, edits)
	if x.session == nil { // else the turn is in the buffer, and outlives the payload
		x.payload.lease = x.body
	}
	return err
}

// injectUsage asks for the usage of a stream whose client did not, with the quirk
// usage_inject:on; what comes of it is kept from the client (dialects G-3).
func (x *exchange) injectUsage(body []byte, p *peeked) []edit {
	options := p.value(body, fieldStreamOptions)
	if !x.stream || x.quirk("usage_inject") != "on" || string(member(options, "include_usage")) == "true" {
		return nil
	}
	x.hideUsage = true
	const asks = `{"include_usage":true}`
	if options != nil {
		return []edit{{p.fields[fieldStreamOptions], []byte(asks)}}
	}
	return []edit{p.insertMember(`"stream_options":` + asks)}
}

// prepareChat makes the payload of a chat body: the body as it is, but for the
// edits, the model's alias and the session's history.
func (s *server) prepareChat(r *http.Request, x *exchange, body []byte, p *peeked, edits []edit) error {
	if err := checkChat(body, p); err != nil {
		return err
	}
	x.wantsUsage = string(member(p.value(body, fieldStreamOptions), "include_usage")) == "true"
	x.model = text(p.value(body, fieldModel))
	edits = append(edits, s.aliasEdit(x.model, p)...)
	messages := p.fields[fieldMessages]
	h, err := s.openSession(r, x, messages.of(body))
	if err != nil {
		return err
	}
	x.history = h
	x.spliceChat(body, edits, h, messages.start)
	return nil
}

// aliasEdit puts the name in under which the upstream knows the model.
func (s *server) aliasEdit(model string, p *peeked) []edit {
	to, ok := s.cfg.alias(model)
	if !ok || model == "" {
		return nil
	}
	return []edit{{p.fields[fieldModel], appendQuoted(nil, to)}}
}

// spliceChat sets the exchange's payload, and how to make it shorter should the
// upstream find the history too long.
func (x *exchange) spliceChat(body []byte, base []edit, h *history, at int) {
	edits := slices.Clone(base)
	if h != nil {
		put, n := h.edits(at)
		x.session.put = n
		edits = append(edits, put...)
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.at.start - b.at.start })
	x.payload = splice(body, edits...)
	x.fidelity = fidelityExact
	if len(edits) > 0 {
		x.fidelity = fidelitySpliced
	}
	if h == nil {
		return
	}
	x.shorter = func() bool {
		if !h.halve() {
			return false
		}
		x.spliceChat(body, base, h, at)
		return true
	}
}

// alias is the name under which the upstream knows a model, if it is another one.
func (c *config) alias(model string) (string, bool) {
	for _, a := range c.Aliases {
		if matchesPattern(a.Pattern, model) {
			return a.Model, a.Model != model
		}
	}
	return "", false
}

// matchesPattern says whether a name fits a pattern, in which each "*" stands
// for any text.
func matchesPattern(pattern, name string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return name == pattern
	}
	if !strings.HasPrefix(name, first) {
		return false
	}
	name = name[len(first):]
	for i := 0; i <= len(name); i++ {
		if matchesPattern(rest, name[i:]) {
			return true
		}
	}
	return false
}

// streamEdit asks the upstream for a stream in a body that leaves it open.
func streamEdit(p *peeked) edit {
	if p.has(fieldStream) {
		return edit{p.fields[fieldStream], []byte("true")}
	}
	return p.insertMember(`"stream":true`)
}

// checkChat refuses a body whose fields that the gateway acts on have a type
// that no upstream takes.
func checkChat(body []byte, p *peeked) error {
	messages := p.value(body, fieldMessages)
	switch {
	case isNull(messages):
		e := badRequest("messages", "Missing required parameter: 'messages'.")
		e.Code = "missing_required_parameter"
		return e
	case !isArray(messages):
		return wrongType("messages", "an array of messages", messages)
	}
	if v := p.value(body, fieldModel); !isNull(v) && !isString(v) {
		return wrongType("model", "a string", v)
	}
	if v := p.value(body, fieldStream); !isNull(v) && string(v) != "true" && string(v) != "false" {
		return wrongType("stream", "true or false", v)
	}
	if v := p.value(body, fieldStreamOptions); !isNull(v) && !isObject(v) {
		return wrongType("stream_options", "an object", v)
	}
	return nil
}

func wrongType(param, want string, got []byte) *apiError {
	kind := "a number"
	switch got[0] {
	case '"':
		kind = "a string"
	case '{':
		kind = "an object"
	case '[':
		kind = "an array"
	case 't', 'f':
		kind = "a boolean"
	case 'n':
		kind = "null"
	}
	e := badRequest(param, "Invalid type for '"+param+"': expected "+want+", but got "+kind+" instead.")
	e.Code = "invalid_type"
	return e
}
