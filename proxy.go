package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An upstream is where requests go. It is the RoundTripper under the proxy, and
// the one place from which the upstream is called.
type upstream struct {
	base      *url.URL
	chat      *url.URL      // of chat completions; not to be changed
	timeout   time.Duration // to the first byte of an answer; 0 = none
	transport *http.Transport
	learned   learned
	rewrite   func(x *exchange) error // makes a converted request's payload anew
}

// maxUpstreamHeader bounds the headers of an upstream's answer.
const maxUpstreamHeader = 256 << 10

func newUpstream(cfg *config) *upstream {
	u := &upstream{base: cfg.BaseURL, timeout: cfg.UpstreamTimeout, transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialUpstream,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  cfg.UpstreamTimeout,
		MaxIdleConnsPerHost:    1024,
		ReadBufferSize:         2 << 10, // what is read whole passes it by
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxUpstreamHeader,
		DisableCompression:     true, // a compressed stream delays tokens, and hides them from the reader
		ForceAttemptHTTP2:      true,
	}}
	u.chat = u.url("/chat/completions", "")
	return u
}

// url is the upstream's address for an escaped path under its base.
func (u *upstream) url(path, query string) *url.URL {
	to := *u.base
	to.RawPath = strings.TrimSuffix(u.base.EscapedPath(), "/") + path
	to.Path, _ = url.PathUnescape(to.RawPath)
	to.RawQuery = query
	return &to
}

// RoundTrip sends a request on. It does more than a RoundTripper should, in that
// it looks at answers: one that says that the context is too long, to a request
// into which history was put, is tried again with less of it, and one that
// refuses a field which the gateway has written, without that field. Nothing has
// been sent to the client by then.
func (u *upstream) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchangeOf(req)
	// Without the trace that ReverseProxy hangs into the context, the transport
	// neither relays 1xx answers nor takes them without end.
	req = req.WithContext(x.ctx)
	var tries attempts
	req.Header = x.sent
	for {
		x.attach(req)
		res, err := u.send(req, x)
		if err != nil {
			x.letGo()
			return nil, err
		}
		x.upstreamStatus, x.firstByte = res.StatusCode, time.Since(x.start)
		if u.again(x, res, &tries) {
			res.Body.Close()
			continue
		}
		if res.StatusCode < 300 {
			for _, field := range tries.remedies {
				u.learned.remember(x.request.Model, field)
				x.drop(field)
			}
		}
		x.letGo()
		// The transport adds trailers to its own response when the body ends;
		// ReverseProxy, which has this one, does not see them.
		answer := *res
		return &answer, nil
	}
}

// letGo drops what only a repeated request would need.
func (x *exchange) letGo() {
	x.payload.lease.letGo()
	x.payload, x.shorter, x.request, x.history = payload{}, nil, nil, nil
}

// attempts are the changes that a request has been through.
type attempts struct {
	shortened int
	remedies  []string // fields that the upstream refused
}

// again changes the request if its answer asks for that.
func (u *upstream) again(x *exchange, res *http.Response, tries *attempts) bool {
	if tries.shortened < 3 && x.shorter != nil && contextTooLong(res) && x.shorter() {
		tries.shortened++
		return true
	}
	if len(tries.remedies) == maxRemedies {
		return false
	}
	field := x.negotiate(res)
	if field == "" || u.rewrite(x) != nil {
		return false
	}
	tries.remedies = append(tries.remedies, field)
	return true
}

var errUpstreamSlow = fmt.Errorf("the upstream neither took the request nor answered: %w", os.ErrDeadlineExceeded)

// send makes one call. ResponseHeaderTimeout begins only when the request is
// written, so a body that the upstream does not take needs a time-out more. One
// that the client is still sending has the client's pace.
func (u *upstream) send(req *http.Request, x *exchange) (*http.Response, error) {
	if u.timeout > 0 && x.payload.size > 0 {
		defer time.AfterFunc(u.timeout, func() { x.cancel(errUpstreamSlow) }).Stop()
	}
	res, err := u.transport.RoundTrip(req)
	if err != nil && context.Cause(x.ctx) == errUpstreamSlow {
		err = errUpstreamSlow
	}
	return res, err
}

// attach makes the exchange's payload the request's body, or else what the
// client is sending. Either can be read again.
func (x *exchange) attach(req *http.Request) {
	switch {
	case x.payload.pieces != nil:
		req.Body, req.ContentLength = x.payload.reader(), x.payload.size
		req.GetBody = func() (io.ReadCloser, error) { return x.payload.reader(), nil }
	case req.Body != nil:
		b := &replay{src: req.Body}
		req.Body, req.GetBody = &replayReader{body: b}, b.again
	}
	// An empty value is not sent, but lets the transport repeat the request when
	// a kept connection turns out to be dead before any answer.
	req.Header["X-Idempotency-Key"] = nil
}

// maxReplayed is how much of a forwarded body is remembered.
const maxReplayed = 64 << 10

// A replay is a client's body, passed on as it comes, whose beginning is
// remembered: a short one can be sent again.
type replay struct {
	mu   sync.Mutex // the transport may still read for a call that it has given up
	src  io.Reader
	kept []byte
	over bool // there was more than is kept
}

func (b *replay) again() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return nil, errors.New("the request body is too long to be sent again")
	}
	return &replayReader{body: b}, nil
}

// replayReader reads a replay from its beginning. Closing it does nothing: the
// server closes the body.
type replayReader struct {
	body *replay
	off  int
}

func (r *replayReader) Read(p []byte) (int, error) {
	b := r.body
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.off < len(b.kept) {
		n := copy(p, b.kept[r.off:])
		r.off += n
		return n, nil
	}
	n, err := b.src.Read(p)
	if b.over = b.over || len(b.kept)+n > maxReplayed; b.over {
		b.kept = nil
	} else {
		b.kept = append(b.kept, p[:n]...)
		r.off = len(b.kept)
	}
	return n, err
}

func (r *replayReader) Close() error { return nil }

// newProxy makes the proxy, whose copy buffers are of that size.
func (s *server) newProxy(buffer int) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        func(*httputil.ProxyRequest) {}, // the request is final when it gets here
		Transport:      s.upstream,
		ModifyResponse: s.modifyResponse,
		ErrorHandler:   s.proxyError,
		ErrorLog:       slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BufferPool:     &bufferPool{size: buffer},
		FlushInterval:  -1,
	}
}

// serveUpstream sends the exchange's request to a path of the upstream, and its
// answer to the client.
func (s *server) serveUpstream(w http.ResponseWriter, r *http.Request, path string) {
	x, h := exchangeOf(r), w.Header()
	if x.fidelity != "" {
		h["X-Apiproxy-Fidelity"] = []string{string(x.fidelity)}
	}
	if x.chat && x.source != "" {
		h["X-Apiproxy-Dialect"] = []string{x.source}
	}
	if x.session != nil {
		h["X-Session-Id"] = []string{x.session.key.ID}
	}
	query := r.URL.RawQuery
	if x.dialect != &openai && !x.native {
		query = "" // a vendor's own parameters mean nothing on the chat path
	}
	if query = cleanQuery(query); path == "/chat/completions" && query == "" {
		s.sendTo(w, r, s.upstream.chat)
		return
	}
	s.sendTo(w, r, s.upstream.url(path, query))
}

// sendTo sends the exchange's request to an address of the upstream.
func (s *server) sendTo(w http.ResponseWriter, r *http.Request, to *url.URL) {
	x := exchangeOf(r)
	out := *r
	out.URL = to
	out.Host = out.URL.Host
	// ReverseProxy would copy the headers, and sift what is sifted already.
	out.Header, x.sent = nil, s.upstreamHeader(r, x)
	out.TransferEncoding, out.Trailer = nil, nil
	if x.payload.pieces != nil {
		out.Body, out.ContentLength = http.NoBody, 0
	}
	if x.chat && x.stream {
		s.streams.ServeHTTP(w, &out)
		return
	}
	s.proxy.ServeHTTP(w, &out)
}

// handleForward sends any other path of the API on as it is, request and answer
// streamed.
func (s *server) handleForward(w http.ResponseWriter, r *http.Request) {
	if err := s.limitBody(w, r); err != nil {
		writeError(w, exchangeOf(r), err)
		return
	}
	s.serveUpstream(w, r, strings.TrimPrefix(r.URL.EscapedPath(), "/v1"))
}

// modifyResponse decides what of the upstream's answer the client gets, or which
// error in its place.
func (s *server) modifyResponse(res *http.Response) error {
	x := exchangeOf(res.Request)
	err := s.takeAnswer(x, res)
	if err == nil {
		s.metrics.streamBegins(x, res)
	}
	var e *apiError
	if errors.As(err, &e) {
		return answerWithError(x, res, e)
	}
	return err
}

func (s *server) takeAnswer(x *exchange, res *http.Response) error {
	res.Trailer = nil
	filterResponse(res.Header, s.mask)
	addRetryAfter(res.Header, res.StatusCode)
	x.describe(res.Header)
	if err := decompress(res); err != nil {
		return err
	}
	res.Body = s.watchIdle(x, res)
	switch {
	case res.StatusCode >= 400:
		return s.upstreamError(x, res)
	case res.StatusCode < 200:
		return upstreamFailure(http.StatusBadGateway, "upstream_malformed", "the upstream switched protocols, which it was not asked to do", nil)
	case res.StatusCode >= 300:
		return upstreamFailure(http.StatusBadGateway, "upstream_redirect", "the upstream answered with a redirect, which is not followed; A4F_BASE_URL must be its final address", nil)
	case x.chat:
		return s.chatAnswer(x, res)
	}
	res.Body = s.mask.reader(res.Body)
	if isEventStream(res.Header) {
		setEventStream(res)
	}
	return nil
}

// describe tells the client what was done to its request.
func (x *exchange) describe(h http.Header) {
	if x.session != nil {
		x.session.describe(h)
	}
	if len(x.dropped) > 0 {
		h.Set("X-APIProxy-Dropped", strings.Join(x.dropped, ","))
	}
	switch {
	case x.dialect == &anthropic && !x.native:
		anthropicRateLimits(h)
		for name := range h {
			if strings.HasPrefix(name, "Openai-") {
				delete(h, name)
			}
		}
	case x.dialect == &gemini:
		for name := range h {
			if notGemini.has(name) {
				delete(h, name)
			}
		}
	}
}

// notGemini are the headers that Gemini's clients have no use for (dialects F.5).
var notGemini = newHeaderSet("X-Ratelimit-*", "X-Should-Retry", "Retry-After-Ms", "Openai-*")

// proxyError answers when there is no answer to pass on.
func (s *server) proxyError(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r)
	if x.clientGone() {
		x.outcome, x.failure = outcomeClientClosed, err
		panic(http.ErrAbortHandler) // there is nobody to answer; net/http would make it a 200
	}
	writeError(w, x, err)
}

// watchIdle gives the exchange up when the upstream is silent for too long in
// the middle of its answer.
func (s *server) watchIdle(x *exchange, res *http.Response) io.ReadCloser {
	limit := s.cfg.UpstreamIdleTimeout
	if limit <= 0 {
		return res.Body
	}
	r := &idleReader{src: res.Body, limit: limit, began: x.start, giveUp: func() { x.cancel(errUpstreamSilent) }}
	if isEventStream(res.Header) {
		r.gaps = &x.gaps
	}
	r.mu.Lock()
	r.timer = time.AfterFunc(limit, r.check)
	r.mu.Unlock()
	return r
}

// idleReader times the silence inside a body. Only the time in which somebody
// waits for the upstream counts, not the time that the client takes. A read
// costs two stores; the timer looks by itself whether one has taken too long.
type idleReader struct {
	src     io.ReadCloser
	limit   time.Duration
	began   time.Time
	waiting atomic.Int64 // when the current Read began, in ns since began; 0 = there is none
	giveUp  func()
	gaps    *gapCounts // nil when the body is no stream

	mu     sync.Mutex
	timer  *time.Timer
	closed bool
}

func (r *idleReader) Read(p []byte) (int, error) {
	now := time.Since(r.began)
	if r.gaps != nil {
		r.gaps.readAt(now)
	}
	r.waiting.Store(int64(now))
	n, err := r.src.Read(p)
	r.waiting.Store(0)
	return n, err
}

func (r *idleReader) check() {
	wait := r.limit
	if since := r.waiting.Load(); since != 0 {
		if wait -= time.Since(r.began) - time.Duration(since); wait <= 0 {
			r.giveUp()
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.timer.Reset(wait)
	}
}

func (r *idleReader) Close() error {
	r.mu.Lock()
	r.closed = true
	r.timer.Stop()
	r.mu.Unlock()
	return r.src.Close()
}

// bufferPool hands ReverseProxy its copy buffers.
type bufferPool struct {
	size int
	pool sync.Pool
}

// Sizes of copy buffers. A stream comes in small pieces and keeps its buffer for
// minutes.
const (
	copyBuffer   = 32 << 10
	streamBuffer = 4 << 10
)

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, p.size)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put(&b) }

// fetchModels asks the upstream for its model list. In mode passthrough the
// client's own key goes with it.
func (s *server) fetchModels(ctx context.Context, scope string, key secret) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.upstream.url("/models", "").String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"Accept": {"application/json"}}
	s.disguise(req.Header)
	s.sign(req.Header, key)
	res, err := s.upstream.transport.RoundTrip(req)
	if err != nil {
		return nil, asAPIError(ctx, err)
	}
	defer res.Body.Close()
	if err := decompress(res); err != nil {
		return nil, err
	}
	body, err := readAtMost(res.Body, maxModelsBytes)
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 300 {
		e, _ := s.classify(res, body)
		return nil, e
	}
	s.mask.bytes(body)
	return body, nil
}
