package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxErrorBytes is how much of an upstream's error is read.
const maxErrorBytes = 1 << 20

// An upstreamReport is what an upstream's error says, in whatever shape it said
// it (dialects F-1, F-2).
type upstreamReport struct {
	message, typ, code, param string
	status                    int  // from error.code, 0 if that is no HTTP status
	openai                    bool // an OpenAI client understands it as it is
}

// parseUpstreamError reads a JSON error; ok is false when body is none.
func parseUpstreamError(body []byte) (e upstreamReport, ok bool) {
	body = bytes.TrimSpace(body)
	if checkJSON(body) != nil {
		return e, false
	}
	for first := range elements(body) { // one upstream wraps its errors in a list
		body = first
		break
	}
	inner := member(body, "error")
	switch {
	case isObject(inner):
		e.read(inner)
		e.openai = e.message != ""
	case isString(inner):
		e.read(body)
		e.message = text(inner)
	default:
		e.read(body)
		if e.message == "" {
			e.message = detail(member(body, "detail"))
		}
		for first := range elements(member(body, "errors")) {
			if e.message == "" {
				e.message = text(member(first, "message"))
			}
		}
	}
	return e, e.message != ""
}

func (e *upstreamReport) read(obj []byte) {
	for k, v := range members(obj) {
		switch string(k) {
		case "message":
			e.message = text(v)
			if isObject(v) {
				e.message = string(v)
			}
		case "type":
			e.typ = text(v)
		case "param":
			e.param = text(v)
		case "code":
			e.code = text(v)
			if n := intOf(v); n >= 400 && n < 600 {
				e.status = int(n)
			} else if n > 0 {
				e.code = string(v)
			}
		}
	}
}

// detail is the text of the shape in which Python frameworks report errors.
func detail(v []byte) string {
	if isString(v) {
		return text(v)
	}
	var all []string
	for d := range elements(v) {
		if msg := text(member(d, "msg")); msg != "" {
			all = append(all, msg)
		}
	}
	return strings.Join(all, "; ")
}

// inside200 is an error object that came with status 200 (dialects F-4).
func (e upstreamReport) inside200(m *mask) *apiError {
	status := e.status
	kind := strings.ToLower(e.typ + " " + e.code)
	switch {
	case status != 0:
	case strings.Contains(kind, "rate_limit"):
		status = http.StatusTooManyRequests
	case strings.Contains(kind, "overloaded"), strings.Contains(kind, "unavailable"):
		status = http.StatusServiceUnavailable
	case strings.Contains(kind, "invalid_request"):
		status = http.StatusBadRequest
	default:
		status = http.StatusBadGateway
	}
	return e.apiError(status, m)
}

// apiError is the error for a client, with the status, type and code of the
// matrix in dialects F.2, and the upstream's own where it has some.
func (e upstreamReport) apiError(status int, m *mask) *apiError {
	to, typ, code := mapStatus(status)
	if to >= 500 {
		e.typ, e.code = "", "" // what is the upstream's own failure is not the client's to act on
	}
	if e.typ == "" {
		e.typ = typ
	}
	if e.code == "" {
		e.code = code
	}
	return &apiError{
		Status: to, Type: e.typ, Code: e.code, Param: e.param, Message: m.text(e.message),
		NoRetry: e.code == "insufficient_quota", cause: fmt.Errorf("upstream status %d", status),
	}
}

// mapStatus is the matrix of dialects F.2 for OpenAI clients.
func mapStatus(status int) (to int, typ, code string) {
	switch status {
	case 401:
		return status, "authentication_error", "invalid_api_key"
	case 402:
		return status, "insufficient_quota", ""
	case 403:
		return status, "permission_error", ""
	case 404:
		return status, "invalid_request_error", "model_not_found"
	case 408, 504:
		return 504, "timeout", "upstream_timeout"
	case 413:
		return status, "invalid_request_error", "request_too_large"
	case 429:
		return status, "rate_limit_error", "rate_limit_exceeded"
	case 500, 501:
		return status, "server_error", ""
	case 503, 529:
		return 503, "server_error", "server_is_overloaded"
	case 400, 409, 422:
		return status, "invalid_request_error", ""
	}
	if status >= 500 {
		return 502, "upstream_error", ""
	}
	return 400, "invalid_request_error", ""
}

// upstreamError turns the upstream's error into the client's. An OpenAI client
// gets one that it understands as it is, byte for byte.
func (s *server) upstreamError(x *exchange, res *http.Response) error {
	body, err := readAtMost(res.Body, maxErrorBytes)
	if err != nil && x.clientGone() {
		return err
	}
	e, asIs := s.classify(res, body)
	if x.dialect != &openai || !asIs {
		return e
	}
	res.Body.Close()
	x.fail(e)
	s.mask.bytes(body)
	setBody(res, body)
	addRetryAfter(res.Header, res.StatusCode)
	if e.NoRetry {
		res.Header.Set("X-Should-Retry", "false")
	}
	return nil
}

// classify says what an upstream's error means for a client, and whether an
// OpenAI client can have it as it is.
func (s *server) classify(res *http.Response, body []byte) (e *apiError, asIs bool) {
	status := res.StatusCode
	if (status == 401 || status == 403) && s.cfg.Auth != authPassthrough {
		e := upstreamFailure(http.StatusBadGateway, "upstream_auth", "the upstream refused this gateway's key; its operator must check A4F_API_KEY", fmt.Errorf("upstream status %d", status))
		e.NoRetry = true
		return e, false
	}
	report, ok := parseUpstreamError(body)
	if !ok {
		if (status == 404 || status == 405) && looksLikeNoAPI(body) {
			return upstreamFailure(http.StatusBadGateway, "upstream_malformed", "the upstream does not know this path; its operator must check A4F_BASE_URL", fmt.Errorf("upstream status %d", status)), false
		}
		report.message = plainMessage(status, body)
	}
	return report.apiError(status, s.mask), report.openai
}

// looksLikeNoAPI says whether an error came from a web server that has no API at
// this address.
func looksLikeNoAPI(body []byte) bool {
	body = bytes.TrimSpace(body)
	return len(body) == 0 || body[0] == '<' || body[0] != '{' && body[0] != '['
}

var htmlTitle = regexp.MustCompile(`(?is)<title[^>]*>([^<]{1,200})`)

// plainMessage is what an error that is no JSON says.
func plainMessage(status int, body []byte) string {
	body = bytes.TrimSpace(body)
	if len(body) > 0 && body[0] == '<' {
		m := htmlTitle.FindSubmatch(body)
		body = nil
		if m != nil {
			body = bytes.TrimSpace(m[1])
		}
	}
	msg := strings.ToValidUTF8(string(body[:min(len(body), 500)]), "")
	if msg == "" {
		return "upstream returned HTTP " + strconv.Itoa(status)
	}
	return msg
}

// answerWithError makes an error the upstream's answer, so that its headers,
// which say when to try again, stay.
func answerWithError(x *exchange, res *http.Response, e *apiError) error {
	res.Body.Close()
	x.fail(e)
	status, v := x.dialect.fail(e)
	body, err := marshal(v)
	if err != nil {
		return err
	}
	for _, name := range []string{"Content-Disposition", "Content-Range", "Accept-Ranges", "Etag", "Last-Modified", "Cache-Control", "X-Accel-Buffering"} {
		delete(res.Header, name)
	}
	res.StatusCode, res.Status = status, ""
	res.Header.Set("Content-Type", "application/json")
	setBody(res, body)
	addRetryAfter(res.Header, status)
	if e.NoRetry {
		res.Header.Set("X-Should-Retry", "false")
	}
	return nil
}

// addRetryAfter tells the clients that know only Retry-After what an upstream
// said in other headers (dialects F.5).
func addRetryAfter(h http.Header, status int) {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable || h.Get("Retry-After") != "" {
		return
	}
	var wait time.Duration
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil {
		wait = time.Duration(ms * float64(time.Millisecond))
	}
	for _, name := range []string{"X-Ratelimit-Reset-Requests", "X-Ratelimit-Reset-Tokens"} {
		v := h.Get(name)
		d, err := time.ParseDuration(v)
		if seconds, err2 := strconv.ParseFloat(v, 64); err != nil && err2 == nil {
			d, err = time.Duration(seconds*float64(time.Second)), nil
		}
		if err == nil && wait == 0 {
			wait = d
		}
	}
	if wait > 0 {
		h.Set("Retry-After", strconv.Itoa(int(min((wait+time.Second-1)/time.Second, 600))))
	}
}

// contextOverflow are the words with which upstreams say that a request is too
// long for the model (dialects F-20).
var contextOverflow = regexp.MustCompile(`(?i)maximum context length|context (window|length|size)|exceeds? the (available|maximum|model'?s) context|prompt is too long|too many (input )?tokens|input (is )?too long|input length and .max_tokens. exceed|prompt token count .* exceeds|reduce the length`)

// contextTooLong says whether an answer is that error. The body can still be
// read afterwards.
func contextTooLong(res *http.Response) bool {
	switch res.StatusCode {
	case 400, 413, 422, 500:
	default:
		return false
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxErrorBytes))
	res.Body = readCloser{io.MultiReader(bytes.NewReader(body), res.Body), res.Body}
	if err != nil {
		return false
	}
	e, _ := parseUpstreamError(body)
	switch e.code {
	case "context_length_exceeded", "string_above_max_length", "model_max_prompt_tokens_exceeded":
		return true
	}
	return e.typ == "exceed_context_size_error" || e.code == "exceed_context_size_error" || contextOverflow.MatchString(e.message)
}
