package main

import (
	"encoding/json"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// anthropic is the dialect of Anthropic's Messages API
// (https://docs.anthropic.com/en/api/messages), converted as dialects C has it.
// Requests are read in anthropic_request.go and anthropic_blocks.go, streams
// written in anthropic_stream.go.
var anthropic = dialect{
	name:      "anthropic",
	decode:    decodeAnthropic,
	encode:    encodeAnthropic,
	stream:    streamAnthropic,
	fail:      failAnthropic,
	failEvent: failEventAnthropic,
	ping:      "event: ping\ndata: {\"type\":\"ping\"}\n\n",
}

// anthropicAnswer is a whole answer. Its fields stand in the vendor's order;
// absent is always null in it.
type anthropicAnswer struct {
	ID           string                `json:"id"`
	Type         string                `json:"type"`
	Role         string                `json:"role"`
	Model        string                `json:"model"`
	Content      []any                 `json:"content"` // anthropicText, anthropicThought, anthropicCall
	StopReason   string                `json:"stop_reason"`
	StopSequence *string               `json:"stop_sequence"`
	StopDetails  *anthropicStopDetails `json:"stop_details"`
	Container    *struct{}             `json:"container"`
	Diagnostics  *struct{}             `json:"diagnostics"`
	Usage        anthropicUsage        `json:"usage"`
}

// anthropicText has no citations: a client in wide use (the AI SDK) takes a list
// there or nothing, and refuses the null that others would.
type anthropicText struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type anthropicThought struct {
	Type      string `json:"type"`
	Thinking  string `json:"thinking"`
	Signature string `json:"signature"`
}

type anthropicCall struct {
	Type   string          `json:"type"`
	ID     string          `json:"id"`
	Name   string          `json:"name"`
	Input  json.RawMessage `json:"input"`
	Caller anthropicCaller `json:"caller"`
}

type anthropicCaller struct {
	Type string `json:"type"`
}

type anthropicStopDetails struct {
	Type        string    `json:"type"`
	Category    *struct{} `json:"category"`
	Explanation *struct{} `json:"explanation"`
}

// anthropicUsage counts tokens. Unlike in chat, the three numbers of the prompt
// are disjoint; clients add them up.
type anthropicUsage struct {
	InputTokens              int64                   `json:"input_tokens"`
	CacheCreationInputTokens int64                   `json:"cache_creation_input_tokens"`
	CacheReadInputTokens     int64                   `json:"cache_read_input_tokens"`
	OutputTokens             int64                   `json:"output_tokens"`
	OutputTokensDetails      *anthropicOutputDetails `json:"output_tokens_details"`
	CacheCreation            *struct{}               `json:"cache_creation"`
	ServerToolUse            *struct{}               `json:"server_tool_use"`
	ServiceTier              *string                 `json:"service_tier"`
	InferenceGeo             *string                 `json:"inference_geo"`
	Speed                    *string                 `json:"speed"`
}

type anthropicOutputDetails struct {
	ThinkingTokens int64 `json:"thinking_tokens"`
}

// anthropicError is the body of every error.
type anthropicError struct {
	Type      string               `json:"type"`
	Error     anthropicErrorDetail `json:"error"`
	RequestID *string              `json:"request_id"`
}

type anthropicErrorDetail struct {
	Type    string `json:"type"`
	Message string `json:"message"`
	Details any    `json:"details,omitempty"`
}

// encodeAnthropic writes a whole answer (dialects C.5).
func encodeAnthropic(x *exchange, c *chatResponse) any {
	return newAnthropicAnswer(x, c, newID, newCallID)
}

// newAnthropicAnswer makes the answer's ids with the functions given. Only the
// first choice counts: a message has room for one.
func newAnthropicAnswer(x *exchange, c *chatResponse, newID func(prefix string) string, newCallID func() string) *anthropicAnswer {
	a := &anthropicAnswer{ID: newID("msg_"), Type: "message", Role: "assistant", Model: x.model}
	var choice chatChoice
	if len(c.Choices) > 0 {
		choice = c.Choices[0]
	}
	calls := slices.DeleteFunc(slices.Clone(choice.Calls), func(call chatToolCall) bool { return call.Function.Name == "" })
	if len(calls) < len(choice.Calls) {
		x.drop(droppedCall)
	}
	if r := choice.Reasoning; r.Text != "" && x.anthropic.ShowThinking {
		a.Content = append(a.Content, thoughtBlock(r, x.anthropic.OmitThinking))
	}
	shown := choice.Text + choice.Refusal
	if shown != "" && (len(calls) == 0 || strings.Trim(shown, blank) != "") || len(a.Content)+len(calls) == 0 {
		a.Content = append(a.Content, anthropicText{Type: "text", Text: shown})
	}
	written := len(choice.Reasoning.Text) + len(shown)
	for _, call := range calls {
		id := call.ID
		if id == "" {
			id = newCallID()
		}
		written += len(call.Function.Name) + len(call.Function.Arguments)
		a.Content = append(a.Content, anthropicCall{
			"tool_use", id, x.clientToolName(call.Function.Name), argumentsObject(call.Function.Arguments), anthropicCaller{"direct"},
		})
	}
	stop := anthropicStop(x, &choice, len(calls) > 0)
	a.StopReason, a.StopSequence, a.StopDetails = stop.reason, stop.sequence, stop.details
	a.Usage = x.anthropicUsage(c.Usage, written)
	return a
}

// thoughtBlock is reasoning as a block. Where the client wants to see none of
// it, the signature alone carries it.
func thoughtBlock(r reasoning, omit bool) anthropicThought {
	t := anthropicThought{Type: "thinking", Thinking: r.Text, Signature: r.stamp(omit)}
	if omit {
		t.Thinking = ""
	}
	return t
}

// anthropicStopped says why an answer ended.
type anthropicStopped struct {
	reason   string
	sequence *string
	details  *anthropicStopDetails
}

// anthropicStop finds the stop reason; the first rule that applies counts
// (dialects C-86 to C-90). A cut at the token limit comes before the calls,
// whose arguments it may have cut.
func anthropicStop(x *exchange, c *chatChoice, calls bool) anthropicStopped {
	switch {
	case c.Finish == "length", c.Finish == "model_length", c.Finish == "max_tokens":
		return anthropicStopped{reason: "max_tokens"}
	case c.Finish == "content_filter", c.Refusal != "":
		return anthropicStopped{reason: "refusal", details: &anthropicStopDetails{Type: "refusal"}}
	case calls:
		return anthropicStopped{reason: "tool_use"}
	case c.StopReason != "" && slices.Contains(x.anthropic.StopSequences, c.StopReason):
		return anthropicStopped{reason: "stop_sequence", sequence: &c.StopReason}
	}
	return anthropicStopped{reason: "end_turn"}
}

// bytesPerToken is what a token of an answer is taken to hold when the upstream
// counts none.
const bytesPerToken = 3.6

// anthropicUsage converts usage; written, the length of the answer in bytes,
// stands in for what the upstream does not tell.
func (x *exchange) anthropicUsage(u usage, written int) anthropicUsage {
	a := anthropicUsage{
		CacheCreationInputTokens: u.CacheWrite, CacheReadInputTokens: u.Cached,
		InputTokens: max(0, u.Prompt-u.Cached-u.CacheWrite), OutputTokens: u.Completion,
	}
	if u.Prompt == 0 {
		a.InputTokens = x.estimate
	}
	if !u.Known {
		a.OutputTokens = int64(math.Ceil(float64(written) / bytesPerToken))
	}
	if u.Reasoning > 0 {
		a.OutputTokensDetails = &anthropicOutputDetails{u.Reasoning}
	}
	return a
}

// failAnthropic renders an error (dialects C.7).
func failAnthropic(e *apiError) (int, any) {
	status, typ := anthropicStatus(e.Status)
	body := anthropicError{
		Type:      "error",
		Error:     anthropicErrorDetail{typ, e.Message, e.Details},
		RequestID: orNil(e.RequestID),
	}
	if e.Code == "context_length_exceeded" {
		status, body.Error.Type = http.StatusBadRequest, "invalid_request_error"
		body.Error.Message = promptTooLong(e.Message)
	}
	return status, body
}

// anthropicStatus is the status, and the error's type, for one of HTTP.
func anthropicStatus(status int) (to int, typ string) {
	switch status {
	case 400, 422:
		return 400, "invalid_request_error"
	case 401:
		return status, "authentication_error"
	case 402:
		return status, "billing_error"
	case 403:
		return status, "permission_error"
	case 404:
		return status, "not_found_error"
	case 408, 504:
		return 504, "timeout_error"
	case 409:
		return status, "conflict_error"
	case 413:
		return status, "request_too_large"
	case 429:
		return status, "rate_limit_error"
	case 501:
		return 500, "api_error"
	case 503, 529:
		return 529, "overloaded_error"
	}
	if status < 500 {
		return status, "invalid_request_error"
	}
	return status, "api_error"
}

var (
	// numberWord finds whole numbers that stand by themselves and not in a model's
	// name.
	numberWord = regexp.MustCompile(`(?:^|[\s(:>"'=])(\d{1,3}(?:,\d{3})+|\d{2,12})(?:[\s),;:"']|\.(?:\s|$)|$)`)
	// contextLimit finds what a message names as the most that the model takes.
	contextLimit = regexp.MustCompile(`(?i)(?:context (?:length|window|size|limit)|maximum|limit|at most)\D{0,16}(\d[\d,]*)`)
)

// promptTooLong puts an overflow into the words by which agents know that they
// must shorten the conversation, with the numbers if the upstream told them
// (dialects C-140).
func promptTooLong(message string) string {
	const phrase = "prompt is too long"
	if strings.HasPrefix(strings.ToLower(message), phrase) {
		return phrase + message[len(phrase):]
	}
	var most, limit int64
	for rest := message; ; {
		at := numberWord.FindStringSubmatchIndex(rest)
		if at == nil {
			break
		}
		n := countOf(rest[at[2]:at[3]])
		if n > most {
			most, limit = n, most
		} else if n < most {
			limit = max(limit, n)
		}
		rest = rest[at[3]:]
	}
	if named := contextLimit.FindStringSubmatch(message); named != nil {
		limit = countOf(named[1])
	}
	if limit == 0 || limit >= most || strings.Contains(message, "> "+strconv.FormatInt(most, 10)) {
		return phrase + ": " + message
	}
	return phrase + ": " + strconv.FormatInt(most, 10) + " tokens > " + strconv.FormatInt(limit, 10) + " maximum"
}

// countOf reads a number that may have commas in it.
func countOf(digits string) int64 { return intOf([]byte(strings.ReplaceAll(digits, ",", ""))) }

// failEventAnthropic appends the event that ends a stream which has broken.
func failEventAnthropic(dst []byte, e *apiError) []byte {
	_, body := failAnthropic(e)
	data, err := marshal(body)
	if err != nil {
		return dst
	}
	return appendEvent(dst, "error", data)
}

// anthropicRateLimits renames an answer's rate limit headers to Anthropic's, in
// which a reset is an instant and not a duration (dialects F.5).
func anthropicRateLimits(h http.Header) { renameRateLimits(h, time.Now()) }

func renameRateLimits(h http.Header, now time.Time) {
	for _, of := range []string{"Requests", "Tokens"} {
		for _, what := range []string{"Limit", "Remaining", "Reset"} {
			from := "X-Ratelimit-" + what + "-" + of
			v := h.Get(from)
			delete(h, from)
			if what == "Reset" {
				v = resetInstant(v, now)
			}
			if v != "" {
				h.Set("Anthropic-Ratelimit-"+of+"-"+what, v)
			}
		}
	}
}

// resetInstant is a reset in one of the forms that upstreams have for it (6m0s,
// seconds, a Unix time, an instant) as an instant, "" for anything else.
func resetInstant(v string, now time.Time) string {
	if _, err := time.Parse(time.RFC3339, v); err == nil {
		return v
	}
	in, err := time.ParseDuration(v)
	if seconds, err2 := strconv.ParseFloat(v, 64); err != nil && err2 == nil && math.Abs(seconds) < 1<<40 {
		const unixTime = 1e9 // no wait is as long as that
		if in, err = time.Duration(min(seconds, unixTime)*float64(time.Second)), nil; seconds >= unixTime {
			return time.Unix(int64(seconds), 0).UTC().Format(time.RFC3339)
		}
	}
	if err != nil || in < 0 {
		return ""
	}
	return now.Add(in + time.Second - 1).UTC().Truncate(time.Second).Format(time.RFC3339)
}
