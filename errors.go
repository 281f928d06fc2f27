package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"
)

// An apiError is a failure that a client may read. Its text says what is wrong
// and what to do, and never holds a key. Anything else that goes wrong becomes
// a generic one, with the detail in the log.
type apiError struct {
	Status     int    // HTTP status, before a dialect maps it to its own
	Type       string // OpenAI's error.type
	Code       string // OpenAI's error.code; "" is null
	Param      string // the field that is to blame; "" is null
	Message    string
	RetryAfter time.Duration // 0: no Retry-After of ours
	NoRetry    bool          // sends x-should-retry: false, which the SDKs obey
	Details    any           // Anthropic's error.details; nil for none
	RequestID  string        // the exchange's, for dialects whose errors name it
	cause      error         // for the log
}

func (e *apiError) Error() string {
	if e.cause != nil {
		return e.Message + ": " + e.cause.Error()
	}
	return e.Message
}

func (e *apiError) Unwrap() error { return e.cause }

// badRequest is a 400 about one field of the request.
func badRequest(param, message string) *apiError {
	return &apiError{Status: http.StatusBadRequest, Type: "invalid_request_error", Param: param, Message: message, NoRetry: true}
}

// badJSON is the 400 for a body that peek or checkJSON refused.
func badJSON(err error) *apiError {
	e := badRequest("", "invalid request body: "+err.Error())
	e.Code = "invalid_json"
	var j *jsonError
	if errors.As(err, &j) && j.param != "" {
		e.Param, e.Code = j.param, "duplicate_key"
		e.Message += "; send it once"
	}
	return e
}

// upstreamFailure is a failure of the upstream or of the way to it.
func upstreamFailure(status int, code, message string, cause error) *apiError {
	typ := "upstream_error"
	if status == http.StatusGatewayTimeout {
		typ = "timeout"
	}
	return &apiError{Status: status, Type: typ, Code: code, Message: message, cause: cause}
}

// Causes with which the gateway itself gives up an exchange.
var (
	errUpstreamSilent = errors.New("the upstream sent nothing for UPSTREAM_IDLE_TIMEOUT")
	errShutdown       = errors.New("the gateway is shutting down")
	errAnswerOver     = errors.New("the answer has ended")
)

// asAPIError says what a client is told of an error on the way to the upstream
// or back. ctx is the exchange's.
func asAPIError(ctx context.Context, err error) *apiError {
	var api *apiError
	if errors.As(err, &api) {
		return api
	}
	if errors.As(err, &clientBodyError{}) {
		return bodyError(err)
	}
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errUpstreamSilent):
		return upstreamFailure(http.StatusGatewayTimeout, "upstream_timeout", "the upstream stopped sending in the middle of its answer", cause)
	case errors.Is(cause, errShutdown):
		return drainingError()
	case isTimeout(err):
		return upstreamFailure(http.StatusGatewayTimeout, "upstream_timeout", "the upstream did not answer in time", err)
	}
	return upstreamFailure(http.StatusBadGateway, "upstream_unreachable", "the upstream can't be reached, or broke off before it answered", err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func bodyTooLarge(limit int64) *apiError {
	return &apiError{
		Status: http.StatusRequestEntityTooLarge, Type: "invalid_request_error", Code: "request_too_large", NoRetry: true,
		Message: "the request body is larger than the " + strconv.FormatInt(limit, 10) + " bytes that this gateway accepts; send less, or have MAX_BODY_BYTES raised",
	}
}

func drainingError() *apiError {
	return &apiError{
		Status: http.StatusServiceUnavailable, Type: "server_error", Code: "shutting_down", RetryAfter: time.Second,
		Message: "the gateway is shutting down; send the request again",
	}
}

func overloadedError() *apiError {
	return &apiError{
		Status: http.StatusServiceUnavailable, Type: "server_error", Code: "server_is_overloaded", RetryAfter: time.Second,
		Message: "the gateway has as many requests in flight as it may; send the request again in a moment",
	}
}

// storeUnavailable is the honest answer to a turn whose history can't be read.
func storeUnavailable(cause error) *apiError {
	return &apiError{
		Status: http.StatusServiceUnavailable, Type: "server_error", Code: "store_unavailable", RetryAfter: 2 * time.Second,
		Message: "the session store can't be reached, so this conversation can't be continued now; try again, or send the request without a session", cause: cause,
	}
}

// writeError answers with err in the shape of the exchange's dialect.
func writeError(w http.ResponseWriter, x *exchange, err error) {
	e := asAPIError(x.ctx, err)
	x.fail(e)
	status, body := x.dialect.fail(e)
	if x.session != nil {
		w.Header().Set("X-Session-Id", x.session.key.ID)
	}
	e.sayRetry(w.Header())
	writeJSON(w, status, body)
}

// sayRetry puts into h when to try again, or that it is of no use.
func (e *apiError) sayRetry(h http.Header) {
	if e.RetryAfter > 0 && h.Get("Retry-After") == "" {
		h.Set("Retry-After", strconv.Itoa(int((e.RetryAfter+time.Second-1)/time.Second)))
	}
	if e.NoRetry {
		h.Set("X-Should-Retry", "false")
	}
}

// writeJSON encodes before it sends the status, so that a failure can still
// become a 500.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":{"message":"the answer can't be encoded","type":"server_error","param":null,"code":null}}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}

// marshal encodes without HTML escaping: a model's "<" arrives as "<".
func marshal(v any) ([]byte, error) {
	var b sliceWriter
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b[:len(b)-1], nil
}

// sliceWriter appends what is written to it.
type sliceWriter []byte

func (b *sliceWriter) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}
