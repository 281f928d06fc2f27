package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"net/http"
	"regexp"
	"slices"
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
	status                    int  // what it says of itself, 0 if that is no HTTP status
	openai                    bool // an OpenAI client understands it as it is
}

// parseUpstreamError reads a JSON error; ok is false when body is none.
func parseUpstreamError(body []byte) (e upstreamReport, ok bool) {
	whole := bytes.TrimSpace(body)
	if checkJSON(whole) != nil {
		return e, false
	}
	body = whole
	for first := range elements(whole) { // Gemini's service wraps its errors in a list
		body = first
		break
	}
	inner := member(body, "error")
	if isObject(inner) {
		e.read(inner)
		e.openai = isObject(whole) && isString(member(inner, "message"))
	} else {
		e.read(body)
		e.message = cmp.Or(text(inner), e.message)
	}
	e.message = cmp.Or(e.message, text(member(body, "message")), detail(member(body, "detail")), firstMessage(member(body, "errors")))
	e.param = cmp.Or(e.param, detailParam(member(body, "detail")))
	return e, e.message != "" || e.openai
}

func (e *upstreamReport) read(obj []byte) {
	filtered := false
	for k, v := range members(obj) {
		switch string(k) {
		case "message":
			e.message = text(v)
			if !isString(v) && !isNull(v) {
				e.message = string(v)
			}
		case "type":
			e.typ = text(v)
		case "param":
			e.param = text(v)
		case "code":
			e.readCode(v)
		case "innererror": // Azure's refusal of a prompt
			filtered = text(member(v, "code")) == "ResponsibleAIPolicyViolation"
		case "status":
			if status, ok := googleStatus[text(v)]; ok && e.status == 0 {
				e.status = status
			}
		}
	}
	if filtered {
		e.code = "content_filter"
	}
}

func (e *upstreamReport) readCode(v []byte) {
	e.code = text(v)
	if intOf(v) > 0 {
		e.code = string(v)
	}
	if n := intOf([]byte(e.code)); n >= 400 && n < 600 {
		e.status = int(n)
	}
}

// googleStatus are the HTTP statuses of the names that Gemini's errors have
// (dialects B.8).
var googleStatus = map[string]int{
	"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403,
	"NOT_FOUND": 404, "ABORTED": 409, "ALREADY_EXISTS": 409, "RESOURCE_EXHAUSTED": 429,
	"INTERNAL": 500, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}

func firstMessage(errors []byte) string {
	for first := range elements(errors) {
		return text(member(first, "message"))
	}
	return ""
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

// detailParam is the field that the first of such errors is about.
func detailParam(v []byte) string {
	for first := range elements(v) {
		var path []string
		for step := range elements(member(first, "loc")) {
			if name := cmp.Or(text(step), string(step)); name != "body" {
				path = append(path, name)
			}
		}
		return strings.Join(path, ".")
	}
	return ""
}

// inside200 is an error object that came with status 200 (dialects F-4).
func (s *server) inside200(e upstreamReport) *apiError {
	status := e.status
	kind := strings.ToLower(e.typ + " " + e.code)
	switch {
	case s.refusesOurKey(status):
		return refusedKey(status)
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
	return e.apiError(status, s.mask)
}

// apiError is the error for a client, with the status, type and code of the
// matrix in dialects F.2, and the upstream's own where it has some.
func (e upstreamReport) apiError(status int, m *mask) *apiError {
	to, typ, code := mapStatus(status)
	switch {
	case e.contextTooLong(status):
		to, typ, code = http.StatusBadRequest, "invalid_request_error", "context_length_exceeded"
	case to < 500: // what is the upstream's own failure is not the client's to act on
		typ = cmp.Or(e.typ, typ)
		if e.code != strconv.Itoa(status) {
			code = cmp.Or(e.code, code)
		}
	}
	return &apiError{
		Status: to, Type: m.text(typ), Code: m.text(code), Param: m.text(e.param),
		Message: m.text(cmp.Or(e.message, plainMessage(status, nil))),
		NoRetry: typ == "insufficient_quota" || code == "insufficient_quota",
		cause:   upstreamStatus(status),
	}
}

// upstreamStatus is an error's cause as the log shows it.
func upstreamStatus(status int) error { return fmt.Errorf("upstream status %d", status) }

// refusesOurKey says whether a status is about the gateway's key, and not about
// the client's own.
func (s *server) refusesOurKey(status int) bool {
	return (status == http.StatusUnauthorized || status == http.StatusForbidden) && s.cfg.Auth != authPassthrough
}

// refusedKey is the answer when the upstream does not take the gateway's key,
// which no client can help (dialects I-5).
func refusedKey(status int) *apiError {
	e := upstreamFailure(http.StatusBadGateway, "upstream_auth", "the upstream refused this gateway's key; its operator must check A4F_API_KEY", upstreamStatus(status))
	e.NoRetry = true
	return e
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
// gets one that it understands as it is, byte for byte, and so does a client
// whose dialect the upstream speaks itself.
func (s *server) upstreamError(x *exchange, res *http.Response) error {
	body, err := readAtMost(res.Body, maxErrorBytes)
	if err != nil && x.clientGone() {
		return err
	}
	if x.instead != nil {
		if answer := x.instead(res.StatusCode); answer != nil {
			return answerInstead(res, answer)
		}
	}
	e, asIs := s.classify(res, body)
	if x.native {
		asIs = e.Code != "upstream_auth" && checkJSON(bytes.TrimSpace(body)) == nil
	} else if x.dialect != &openai {
		asIs = false
	}
	if !asIs {
		return e
	}
	res.Body.Close()
	x.fail(e)
	setBody(res, body)
	addRetryAfter(res.Header, res.StatusCode)
	e.sayRetry(res.Header)
	return nil
}

// answerInstead makes an answer of an error: the estimate of what the upstream
// does not count.
func answerInstead(res *http.Response, answer any) error {
	body, err := marshal(answer)
	if err != nil {
		return err
	}
	res.Body.Close()
	res.StatusCode, res.Status = http.StatusOK, ""
	res.Header.Set("Content-Type", "application/json")
	res.Header.Set("X-APIProxy-Token-Count", "estimate")
	setBody(res, body)
	return nil
}

// classify says what an upstream's error means for a client, and whether an
// OpenAI client can have it as it is. It hides the upstream's key in body first:
// a message may be cut in the middle of one.
func (s *server) classify(res *http.Response, body []byte) (e *apiError, asIs bool) {
	s.mask.bytes(body)
	status := res.StatusCode
	if s.refusesOurKey(status) {
		return refusedKey(status), false
	}
	report, ok := parseUpstreamError(body)
	if !ok && isNoAPI(res, body) {
		e := upstreamFailure(http.StatusBadGateway, "upstream_malformed", "the upstream does not know this path; its operator must check A4F_BASE_URL", upstreamStatus(status))
		e.NoRetry = true
		return e, false
	}
	if !ok {
		report.message = plainMessage(status, body)
	}
	return report.apiError(status, s.mask), report.openai
}

// isNoAPI says whether an error came from a web server that has no API at this
// address. An answer to HEAD has no body that could tell.
func isNoAPI(res *http.Response, body []byte) bool {
	if res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusMethodNotAllowed {
		return false
	}
	body = bytes.TrimSpace(body)
	isJSON := len(body) > 0 && (body[0] == '{' || body[0] == '[')
	return !isJSON && res.Request.Method != http.MethodHead
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
	addRetryAfter(res.Header, e.Status)
	if e.RetryAfter == 0 {
		e.RetryAfter = retryAfter(res.Header, time.Now())
	}
	status, v := x.dialect.fail(e)
	if x.dialect == &gemini && isPromptRefusal(e) {
		v = geminiPromptBlocked(x.model)
	}
	body, err := marshal(v)
	if err != nil {
		return err
	}
	for name := range res.Header {
		if ofTheBody.has(name) {
			delete(res.Header, name)
		}
	}
	res.StatusCode, res.Status = status, ""
	res.Header.Set("Content-Type", "application/json")
	setBody(res, body)
	e.sayRetry(res.Header)
	if x.stream && status == http.StatusOK { // an answer after all, and so a stream
		setBody(res, x.dialect.stream(x).fail(nil, e))
		x.setStreamType(res)
	}
	return nil
}

// retryAfter is the wait that an answer's Retry-After asks for, in seconds or
// until a date; 0 for none, and for one that makes no sense.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	const most = 1e6 // seconds; more is no wait
	wait := time.Duration(min(seconds(v), most) * float64(time.Second))
	if date, err := http.ParseTime(v); err == nil {
		wait = date.Sub(now)
	}
	return max(wait, 0)
}

// ofTheBody are the headers that go with a body which is replaced.
var ofTheBody = newHeaderSet("Content-*", "Accept-Ranges", "Etag", "Last-Modified", "Expires", "Cache-Control", "Digest", "Repr-Digest", "X-Accel-Buffering")

// maxRetryAfter bounds a computed Retry-After.
const maxRetryAfter = 600 // seconds

// addRetryAfter tells the clients that know only Retry-After what an upstream
// said in other headers (dialects F.5).
func addRetryAfter(h http.Header, status int) {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable || h.Get("Retry-After") != "" {
		return
	}
	wait := seconds(h.Get("Retry-After-Ms")) / 1000
	if wait == 0 {
		wait = untilReset(h)
	}
	if wait > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(min(wait, maxRetryAfter)))))
	}
}

// untilReset is how many seconds are left until the limits are reset that are
// used up, or all of them when none says that it is; 0 when nothing is said.
func untilReset(h http.Header) float64 {
	var usedUp, all float64
	for name := range h {
		limit, ok := strings.CutPrefix(name, "X-Ratelimit-Reset-")
		if !ok {
			continue
		}
		wait := seconds(h.Get(name))
		all = max(all, wait)
		if h.Get("X-Ratelimit-Remaining-"+limit) == "0" {
			usedUp = max(usedUp, wait)
		}
	}
	return cmp.Or(usedUp, all)
}

// seconds reads a number, or a duration such as 6m0s; 0 for anything else.
func seconds(v string) float64 {
	n, err := strconv.ParseFloat(v, 64)
	if d, err2 := time.ParseDuration(v); err != nil && err2 == nil {
		n, err = d.Seconds(), nil
	}
	if err != nil || !(n > 0) {
		return 0
	}
	return n
}

// contextOverflow are the words with which upstreams say that a request is too
// long for the model (dialects F-20).
var contextOverflow = regexp.MustCompile(`(?i)maximum context length|context (window|length|size)|exceeds? the (available|maximum|model'?s) context|prompt is too long|too many (input )?tokens|input (is )?too long|input length and .max_tokens. exceed|prompt token count .* exceeds|reduce the length`)

// overflowStatus are the statuses with which they say it.
var overflowStatus = []int{400, 413, 422, 500}

// maxErrorWait bounds the wait for the rest of an error whose text decides
// whether the request is repeated.
const maxErrorWait = 10 * time.Second

// contextTooLong says whether an answer is that error. The body can still be
// read afterwards.
func contextTooLong(res *http.Response) bool {
	if !slices.Contains(overflowStatus, res.StatusCode) || decompress(res) != nil {
		return false
	}
	body := res.Body
	defer time.AfterFunc(maxErrorWait, func() { body.Close() }).Stop()
	read, err := io.ReadAll(io.LimitReader(body, maxErrorBytes))
	res.Body = readCloser{io.MultiReader(bytes.NewReader(read), body), body}
	if err != nil {
		return false
	}
	e, _ := parseUpstreamError(read)
	return e.contextTooLong(res.StatusCode)
}

func (e upstreamReport) contextTooLong(status int) bool {
	if !slices.Contains(overflowStatus, status) {
		return false
	}
	for _, kind := range []string{e.code, e.typ} {
		switch kind {
		case "context_length_exceeded", "exceed_context_size_error", "string_above_max_length", "model_max_prompt_tokens_exceeded":
			return true
		}
	}
	return contextOverflow.MatchString(e.message)
}
