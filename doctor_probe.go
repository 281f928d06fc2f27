package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// How the doctor asks, and what it makes of the answers.

const (
	probeTimeout = 20 * time.Second
	// mostWait is the longest Retry-After that a probe waits for.
	mostWait = 10 * time.Second
	// probeTokens is the limit that probes set. Models that think first need some
	// room, or there is no answer to look at.
	probeTokens = 512
	// maxProbeBytes bounds an answer to a probe; model lists may be long.
	maxProbeBytes = maxModelsBytes
)

// A reply is the upstream's answer to one request, read to its end.
type reply struct {
	status int // 0: none came
	header http.Header
	body   []byte
	pieces []piece // as they arrived
	took   time.Duration
	err    error // why there is no answer, or only part of one
}

// A piece is what one read brought: the body up to end, that long after the
// request.
type piece struct {
	end int
	at  time.Duration
}

// A trouble is why a probe has no answer to look at.
type trouble struct {
	found, advice string
	refused       bool // the upstream understood, and said no
	limited       bool // it has no time now
}

// post sends a body in a dialect, which the upstream may speak. A rate limit gets
// one second chance.
func (d *doctor) post(ctx context.Context, to *url.URL, in *dialect, body []byte) *reply {
	r := d.send(ctx, http.MethodPost, to, in, body)
	if r.status != http.StatusTooManyRequests {
		return r
	}
	wait := max(retryAfter(r.header, time.Now()), time.Second)
	if wait > mostWait {
		return r
	}
	select {
	case <-time.After(wait):
		return d.send(ctx, http.MethodPost, to, in, body)
	case <-ctx.Done():
		return r
	}
}

// send makes one request with the headers that the gateway's own have.
func (d *doctor) send(ctx context.Context, method string, to *url.URL, in *dialect, body []byte) *reply {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	began := time.Now()
	r := &reply{}
	req, err := http.NewRequestWithContext(ctx, method, to.String(), bytes.NewReader(body))
	if err != nil {
		r.err = err
		return r
	}
	req.Header = http.Header{"Accept": {"application/json"}, "User-Agent": nil} // or the transport would make one up
	if body != nil {
		req.Header["Content-Type"], req.Header["Accept"] = []string{"application/json"}, []string{"*/*"}
	}
	if in == &anthropic {
		req.Header.Set("Anthropic-Version", "2023-06-01")
	}
	d.s.disguise(req.Header)
	d.s.sign(req.Header, d.key)
	nativeKey(req.Header, in.name)
	res, err := d.s.upstream.transport.RoundTrip(req)
	if err != nil {
		r.err, r.took = err, time.Since(began)
		return r
	}
	defer res.Body.Close()
	r.status, r.header = res.StatusCode, res.Header
	r.err = decompress(res)
	if r.err == nil {
		r.read(res.Body, began)
	}
	d.mask.bytes(r.body)
	r.took = time.Since(began)
	return r
}

func (r *reply) read(body io.Reader, began time.Time) {
	buf := make([]byte, 32<<10)
	for {
		n, err := body.Read(buf)
		r.body = append(r.body, buf[:n]...)
		if n > 0 {
			r.pieces = append(r.pieces, piece{len(r.body), time.Since(began)})
		}
		switch {
		case err == io.EOF:
			return
		case err == nil && len(r.body) > maxProbeBytes:
			err = answerTooLong(maxProbeBytes)
			fallthrough
		case err != nil:
			r.err = err
			return
		}
	}
}

// trouble is nil for a 2xx that came whole.
func (d *doctor) trouble(r *reply) *trouble {
	switch {
	case r.err != nil && r.status != 0 && isTimeout(r.err):
		return &trouble{found: fmt.Sprintf("the answer did not end within %v", d.patience), advice: "try a faster model with -model", limited: true}
	case r.err != nil && r.status != 0:
		return &trouble{found: "the answer broke off: " + d.said(r.err.Error()), advice: "look at the upstream's own log"}
	case r.err != nil:
		t := explainNetwork(r.err, d.s.cfg.BaseURL, d.patience)
		return &t
	case r.status >= 300 && r.status < 400:
		return &trouble{found: fmt.Sprintf("HTTP %d: it redirects to %s, and redirects are not followed", r.status, d.location(r)),
			advice: "set A4F_BASE_URL to the final address"}
	case r.status < 200 || r.status >= 300:
		return d.refusal(r)
	}
	return nil
}

// location is where a redirect leads, without its query, which may hold a key.
func (d *doctor) location(r *reply) string {
	u, err := d.s.cfg.BaseURL.Parse(r.header.Get("Location"))
	if err != nil {
		return "nowhere"
	}
	return d.said((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String())
}

// refusal says what an error answer says, and what to do about it.
func (d *doctor) refusal(r *reply) *trouble {
	report, isJSON := parseUpstreamError(r.body)
	message := report.message
	if !isJSON {
		message = plainMessage(r.status, r.body)
	}
	t := &trouble{found: fmt.Sprintf("HTTP %d: %s", r.status, d.said(message)), limited: r.status == http.StatusTooManyRequests}
	t.refused = isJSON && r.status < 500 && !t.limited
	switch {
	case strings.Contains(string(r.body), "HTTP request to an HTTPS server"), strings.Contains(string(r.body), "HTTP request was sent to HTTPS port"):
		t.advice = "A4F_BASE_URL must begin with https://"
	case r.status == http.StatusUnauthorized, r.status == http.StatusForbidden:
		t.advice = "check A4F_API_KEY"
	case r.status == http.StatusPaymentRequired, report.code == "insufficient_quota":
		t.advice = "the account at the upstream has no credit left"
	case r.status == http.StatusTooManyRequests:
		t.advice = "the upstream limits the rate; run the doctor again in a minute"
	case (r.status == http.StatusNotFound || r.status == http.StatusMethodNotAllowed) && !isJSON:
		t.advice = "check the path of A4F_BASE_URL: there is no API here"
	case r.status >= 500:
		t.advice = "look at the upstream's own log"
	}
	return t
}

// explainNetwork says why no answer came.
func explainNetwork(err error, base *url.URL, patience time.Duration) trouble {
	var (
		dns      *net.DNSError
		op       *net.OpError
		unknown  x509.UnknownAuthorityError
		name     x509.HostnameError
		invalid  x509.CertificateInvalidError
		notTLS   tls.RecordHeaderError
		fromPeer tls.AlertError
	)
	switch {
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return trouble{found: "the proxy does not take the connection: " + op.Err.Error(), advice: "check HTTPS_PROXY and NO_PROXY"}
	case errors.As(err, &dns):
		return trouble{found: "no address for the name " + dns.Name, advice: "check the host in A4F_BASE_URL, and this machine's DNS"}
	case errors.As(err, &unknown):
		return trouble{found: "the certificate is signed by an authority that this machine does not know",
			advice: "set SSL_CERT_FILE to a bundle of certificates that holds the authority's"}
	case errors.As(err, &name):
		return trouble{found: "the certificate is for " + certificateNames(name.Certificate) + ", not for " + name.Host,
			advice: "use a name in A4F_BASE_URL that the certificate is made out to"}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return trouble{found: fmt.Sprintf("the certificate is valid from %s to %s", invalid.Cert.NotBefore.Format(time.DateOnly), invalid.Cert.NotAfter.Format(time.DateOnly)),
			advice: "have it renewed, or set this machine's clock right"}
	case errors.As(err, &notTLS), errors.Is(err, http.ErrSchemeMismatch):
		return trouble{found: base.Host + " does not speak TLS", advice: "A4F_BASE_URL may have to begin with http://"}
	case errors.As(err, &fromPeer), isCertificateError(err):
		return trouble{found: "no TLS connection: " + err.Error(), advice: "check the host in A4F_BASE_URL, and the upstream's certificate"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return trouble{found: "nothing listens at " + base.Host, advice: "start the upstream, or correct host and port in A4F_BASE_URL" + containerHint(base)}
	case isTimeout(err):
		return trouble{found: fmt.Sprintf("no answer within %v", patience), advice: "check that this machine reaches " + base.Host + " (firewall, HTTPS_PROXY), and that the upstream is not overloaded"}
	}
	return trouble{found: "no answer: " + err.Error(), advice: "check that " + base.Host + " is an HTTP server, and A4F_BASE_URL its address"}
}

func isCertificateError(err error) bool {
	var verification *tls.CertificateVerificationError
	return errors.As(err, &verification)
}

func certificateNames(c *x509.Certificate) string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name at all"
	}
	return strings.Join(names[:min(len(names), 3)], ", ")
}

func containerHint(base *url.URL) string {
	if !loopbackAddr(net.JoinHostPort(base.Hostname(), "1")) {
		return ""
	}
	return "; inside a container, the machine itself is host.docker.internal"
}

// A connTrace notes how a connection came about. Dials that lost a race may
// still report when the request is over.
type connTrace struct {
	mu                sync.Mutex
	proxy             string
	dns, connect, tls time.Duration
	began             time.Time
	address           string
	state             *tls.ConnectionState // nil until a handshake succeeded
}

func (t *connTrace) context(ctx context.Context) context.Context {
	note := func(f func()) {
		t.mu.Lock()
		defer t.mu.Unlock()
		f()
	}
	start := func() { note(func() { t.began = time.Now() }) }
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:     func(httptrace.DNSStartInfo) { start() },
		DNSDone:      func(httptrace.DNSDoneInfo) { note(func() { t.dns = time.Since(t.began) }) },
		ConnectStart: func(string, string) { start() },
		ConnectDone: func(_, address string, err error) {
			note(func() {
				if err == nil && t.address == "" {
					t.address, t.connect = address, time.Since(t.began)
				}
			})
		},
		TLSHandshakeStart: start,
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			note(func() {
				if err == nil {
					t.state, t.tls = &state, time.Since(t.began)
				}
			})
		},
	})
}

// ask sends a chat request and reads the answer, in whichever form it comes.
func (d *doctor) ask(ctx context.Context, q *chatRequest) (*chatResponse, *reply, *trouble) {
	q.Model = d.model
	q.setMaxTokens(number(probeTokens), d.limit)
	r := d.postChat(ctx, q)
	if other := d.otherLimit(r); other != "" {
		q.MaxTokens, q.MaxCompletionTokens, d.limit = nil, nil, other
		q.setMaxTokens(number(probeTokens), other)
		r = d.postChat(ctx, q)
	}
	if t := d.trouble(r); t != nil {
		return nil, r, t
	}
	res, t := d.understand(r)
	if res != nil {
		d.noteReasoning(res)
	}
	return res, r, t
}

func (d *doctor) postChat(ctx context.Context, q *chatRequest) *reply {
	body, err := q.body()
	if err != nil {
		return &reply{err: err}
	}
	return d.post(ctx, d.s.upstream.url("/chat/completions", ""), &openai, body)
}

// otherLimit is the field to set in place of the one that the upstream refuses.
func (d *doctor) otherLimit(r *reply) string {
	if r.status != http.StatusBadRequest && r.status != http.StatusUnprocessableEntity || !bytes.Contains(r.body, []byte(d.limit)) {
		return ""
	}
	if d.limit == "max_tokens" {
		return "max_completion_tokens"
	}
	return "max_tokens"
}

// understand reads a 2xx answer to a chat request.
func (d *doctor) understand(r *reply) (*chatResponse, *trouble) {
	if isEventStream(r.header) {
		s := d.readStream(r)
		return s.answer, s.trouble
	}
	body := bytes.TrimSpace(r.body)
	if checkJSON(body) != nil {
		return nil, &trouble{found: "the answer is not JSON: " + d.said(plainMessage(r.status, body)), advice: "check the path of A4F_BASE_URL: something other than the API answers here"}
	}
	res := readCompletion(body, d.s.cfg.quirk)
	if len(res.Choices) > 0 {
		return res, nil
	}
	if report, ok := parseUpstreamError(body); ok {
		return nil, &trouble{found: fmt.Sprintf("an error with status %d: %s", r.status, d.said(report.message)), advice: "look at the upstream's own log"}
	}
	return nil, &trouble{found: "the answer is no chat completion", advice: "check the path of A4F_BASE_URL: is this OpenAI's API?"}
}

// A timedStream is an answer that was streamed, and how it came.
type timedStream struct {
	answer   *chatResponse
	texts    int             // events with something for the reader
	arrivals []time.Duration // of those; one for all that came at once
	done     bool            // [DONE] came
	whole    bool            // it was no stream, but one JSON answer
	trouble  *trouble
}

// readStream takes a stream apart, piece by piece as it arrived.
func (d *doctor) readStream(r *reply) timedStream {
	s := timedStream{answer: &chatResponse{}}
	chunks := newChunkReader(d.s.cfg.quirk)
	var p eventParser
	start := 0
	at := time.Duration(0)
	on := func(e event) {
		switch {
		case e.done():
			s.done = true
		case checkJSON(e.data) != nil:
			s.trouble = &trouble{found: "an event is not JSON: " + d.said(string(e.data)), advice: "look at the upstream's own log"}
		default:
			s.add(d, chunks.read(e.data), e.data, at)
		}
	}
	for _, piece := range r.pieces {
		at = piece.at
		p.feed(r.body[start:piece.end], on)
		start = piece.end
	}
	p.end(on)
	for _, rest := range chunks.flush() {
		s.answer.add(rest)
	}
	s.answer.settle()
	if s.trouble == nil && len(s.answer.Choices) == 0 {
		s.trouble = &trouble{found: "the stream holds no answer", advice: "look at the upstream's own log"}
	}
	return s
}

func (s *timedStream) add(d *doctor, c chatChunk, data []byte, at time.Duration) {
	if report, ok := parseUpstreamError(data); ok && member(data, "choices") == nil {
		s.trouble = &trouble{found: "an error in the stream: " + d.said(report.message), advice: "look at the upstream's own log"}
		return
	}
	if c.Usage.Known {
		s.answer.Usage = c.Usage
	}
	for _, delta := range c.Deltas {
		s.answer.add(delta)
		if delta.Text == "" && delta.Reasoning.Text == "" && len(delta.Calls) == 0 {
			continue
		}
		s.texts++
		if n := len(s.arrivals); n == 0 || s.arrivals[n-1] != at {
			s.arrivals = append(s.arrivals, at)
		}
	}
}

// noteReasoning remembers where an answer had its reasoning.
func (d *doctor) noteReasoning(res *chatResponse) {
	for _, c := range res.Choices {
		if c.Reasoning.Field != 0 && d.reasoning == 0 {
			d.reasoning = c.Reasoning.Field
		}
		d.orphanTag = d.orphanTag || strings.Contains(c.Text, thinkClose)
	}
}
