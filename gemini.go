package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Google's Gemini API, generateContent and what belongs to it (dialects B):
// https://ai.google.dev/api/generate-content. Requests are read in
// gemini_request.go and gemini_schema.go, streams are written in
// gemini_stream.go.

// gemini is the dialect of the paths …/models/{model}:generateContent.
var gemini = dialect{
	name:      "gemini",
	decode:    decodeGemini,
	encode:    encodeGemini,
	stream:    newGeminiStream,
	fail:      failGemini,
	failEvent: failEventGemini,
	ping:      ": keep-alive\n\n",
}

// geminiRequest is what the answer depends on of a request on one of Gemini's
// own paths. The path decides the first two before the body is decoded.
type geminiRequest struct {
	Stream          bool // streamGenerateContent
	SSE             bool // ?alt=sse; without, a stream is a JSON array
	IncludeThoughts bool // the client wants to see reasoning
	Enum            bool // the answer is one of an enum's values, bare

	calls  int    // in the conversation so far
	origin []byte // digest of its beginning, if its client leaves the ids of calls out; nil if it does not
}

// geminiView is x.gemini, or the plainest one.
func (x *exchange) geminiView() *geminiRequest {
	if x.gemini == nil {
		return &geminiRequest{}
	}
	return x.gemini
}

// cutGeminiCall takes the escaped path after "models/" apart: the model, whose
// name may hold slashes and colons, and the verb after the last colon
// (dialects B-6).
func cutGeminiCall(escapedRest string) (model, verb string, ok bool) {
	rest, err := url.PathUnescape(escapedRest)
	if err != nil {
		return "", "", false
	}
	colon := strings.LastIndexByte(rest, ':')
	if colon < 0 {
		return "", "", false
	}
	model, verb = strings.TrimPrefix(rest[:colon], "models/"), rest[colon+1:]
	return model, verb, model != "" && verb != "" && !strings.Contains(verb, "/")
}

// geminiAnswer is a GenerateContentResponse: a whole answer, or one chunk.
type geminiAnswer struct {
	Candidates    []geminiCandidate `json:"candidates"`
	UsageMetadata *geminiUsage      `json:"usageMetadata,omitempty"`
	ModelVersion  string            `json:"modelVersion"`
	CreateTime    string            `json:"createTime,omitempty"`
	ResponseID    string            `json:"responseId,omitempty"`
}

type geminiCandidate struct {
	Content        geminiContent   `json:"content"`
	FinishReason   string          `json:"finishReason,omitempty"`
	Index          int             `json:"index"`
	AvgLogprobs    *float64        `json:"avgLogprobs,omitempty"`
	LogprobsResult *geminiLogprobs `json:"logprobsResult,omitempty"`
}

type geminiContent struct {
	Role  string             `json:"role"`
	Parts []geminiAnswerPart `json:"parts"`
}

type geminiAnswerPart struct {
	Text             *string             `json:"text,omitempty"`
	Thought          bool                `json:"thought,omitempty"`
	FunctionCall     *geminiFunctionCall `json:"functionCall,omitempty"`
	ThoughtSignature string              `json:"thoughtSignature,omitempty"`
}

type geminiFunctionCall struct {
	ID   string          `json:"id"`
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"`
}

type geminiLogprobs struct {
	ChosenCandidates []geminiLogprob     `json:"chosenCandidates"`
	TopCandidates    []geminiTopLogprobs `json:"topCandidates"`
}

type geminiTopLogprobs struct {
	Candidates []geminiLogprob `json:"candidates"`
}

type geminiLogprob struct {
	Token          string          `json:"token"`
	LogProbability json.RawMessage `json:"logProbability"`
}

// geminiUsage counts tokens. Unlike chat, Gemini does not count thoughts among
// the candidates' tokens.
type geminiUsage struct {
	PromptTokenCount        int64                `json:"promptTokenCount"`
	CandidatesTokenCount    int64                `json:"candidatesTokenCount"`
	TotalTokenCount         int64                `json:"totalTokenCount"`
	CachedContentTokenCount int64                `json:"cachedContentTokenCount,omitempty"`
	PromptTokensDetails     []geminiTokenDetails `json:"promptTokensDetails"`
	ThoughtsTokenCount      int64                `json:"thoughtsTokenCount,omitempty"`
}

type geminiTokenDetails struct {
	Modality   string `json:"modality"`
	TokenCount int64  `json:"tokenCount"`
}

func textTokenDetails(n int64) []geminiTokenDetails {
	return []geminiTokenDetails{{"TEXT", n}}
}

// encodeGemini writes a whole answer.
func encodeGemini(x *exchange, c *chatResponse) any {
	a := geminiAnswer{
		Candidates: []geminiCandidate{}, ModelVersion: x.model,
		CreateTime: geminiTime(c.Created), ResponseID: orElse(c.ID, x.id),
	}
	var size int64
	for i := range c.Choices {
		o := &c.Choices[i]
		a.Candidates = append(a.Candidates, geminiCandidateOf(x, o))
		size += int64(len(o.Text) + len(o.Refusal) + len(o.Reasoning.Text))
		for j := range o.Calls {
			size += int64(len(o.Calls[j].Function.Arguments))
		}
	}
	a.UsageMetadata = geminiUsageOf(c.Usage, x.estimate, size)
	return a
}

func geminiCandidateOf(x *exchange, o *chatChoice) geminiCandidate {
	l := geminiLogprobsOf(nil, o.Logprobs)
	return geminiCandidate{
		Content:      geminiContent{"model", geminiParts(x, o)},
		FinishReason: geminiFinish(o.Finish, o.Refusal != ""),
		Index:        o.Index, AvgLogprobs: l.mean(), LogprobsResult: l,
	}
}

// geminiParts are the parts of one answer in the order in which clients expect
// them: thoughts, text, calls. There is always one.
func geminiParts(x *exchange, o *chatChoice) []geminiAnswerPart {
	g := x.geminiView()
	var parts []geminiAnswerPart
	if g.IncludeThoughts && o.Reasoning.Text != "" {
		parts = append(parts, geminiAnswerPart{Text: &o.Reasoning.Text, Thought: true, ThoughtSignature: geminiStamp(o.Reasoning)})
	}
	var calls []geminiAnswerPart
	for i := range o.Calls {
		if call := &o.Calls[i]; call.Function.Name != "" {
			calls = append(calls, geminiCallPart(x, call))
		}
	}
	said := o.Text
	if g.Enum {
		said = bareEnum(said)
	}
	if len(calls) > 0 && isBlank(said) {
		said = ""
	}
	if said += o.Refusal; said != "" || len(parts)+len(calls) == 0 {
		parts = append(parts, geminiAnswerPart{Text: &said})
	}
	return append(parts, calls...)
}

func geminiCallPart(x *exchange, call *chatToolCall) geminiAnswerPart {
	id := call.ID
	if id == "" {
		id = newCallID()
	}
	return geminiAnswerPart{
		FunctionCall:     &geminiFunctionCall{id, x.clientToolName(call.Function.Name), argumentsObject(call.Function.Arguments)},
		ThoughtSignature: text(member(member(call.ExtraContent, "google"), "thought_signature")),
	}
}

// isBlank says whether text holds nothing to be seen. Models put such text
// between their calls (dialects E-16).
func isBlank(s string) bool { return strings.Trim(s, blank) == "" }

// bareEnum takes the quotes off an answer that a schema made a JSON string:
// Gemini's enum answers are bare.
func bareEnum(s string) string {
	raw := []byte(strings.TrimSpace(s))
	if isString(raw) && checkJSON(raw) == nil {
		return text(raw)
	}
	return s
}

// geminiStampStart is how every stamp begins in base64.
const geminiStampStart = "YXB4MS"

// geminiStamp is the stamp of reasoning (dialects E-24) as the bytes that
// Gemini's signatures are: in base64.
func geminiStamp(r reasoning) string {
	return base64.StdEncoding.EncodeToString([]byte(r.stamp(false)))
}

// readGeminiStamp is the stamp in a signature; ok is false for any other
// signature.
func readGeminiStamp(signature string) (stamp string, ok bool) {
	if !strings.HasPrefix(signature, geminiStampStart) {
		return "", false
	}
	raw, err := decodeBase64(signature)
	return string(raw), err == nil && strings.HasPrefix(string(raw), stampPrefix)
}

// decodeBase64 takes both alphabets, with and without padding: clients of the
// same API differ in that.
func decodeBase64(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(standardBase64(s), "="))
}

func standardBase64(s string) string {
	if !strings.ContainsAny(s, "-_") {
		return s
	}
	return strings.NewReplacer("-", "+", "_", "/").Replace(s)
}

// geminiFinish is the finishReason for a finish_reason in lower case.
func geminiFinish(finish string, refused bool) string {
	if refused {
		return "SAFETY"
	}
	switch finish {
	case "", "stop", "eos", "complete", "tool_calls", "function_call":
		return "STOP"
	case "length", "model_length", "max_tokens":
		return "MAX_TOKENS"
	case "content_filter":
		return "SAFETY"
	}
	return "OTHER"
}

// geminiTime is a time in Unix seconds in RFC 3339, "" for none.
func geminiTime(seconds int64) string {
	if seconds <= 0 || seconds > 253402300799 { // the last second with a year of four digits
		return ""
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}

// geminiLogprobsOf adds a chat answer's logprobs to those before it, which may
// be nil. It returns nil when there are none.
func geminiLogprobsOf(l *geminiLogprobs, raw []byte) *geminiLogprobs {
	for entry := range elements(member(raw, "content")) {
		if l == nil {
			l = &geminiLogprobs{}
		}
		l.ChosenCandidates = append(l.ChosenCandidates, geminiLogprobOf(entry))
		top := geminiTopLogprobs{Candidates: []geminiLogprob{}}
		for t := range elements(member(entry, "top_logprobs")) {
			top.Candidates = append(top.Candidates, geminiLogprobOf(t))
		}
		l.TopCandidates = append(l.TopCandidates, top)
	}
	return l
}

func geminiLogprobOf(entry []byte) geminiLogprob {
	p := geminiLogprob{Token: text(member(entry, "token")), LogProbability: json.RawMessage("0")}
	if v := member(entry, "logprob"); isNumber(v) {
		p.LogProbability = bytes.Clone(v)
	}
	return p
}

// mean is the average log probability, nil when there is none.
func (l *geminiLogprobs) mean() *float64 {
	if l == nil {
		return nil
	}
	sum := 0.0
	for _, c := range l.ChosenCandidates {
		f, _ := strconv.ParseFloat(string(c.LogProbability), 64)
		sum += f
	}
	sum /= float64(len(l.ChosenCandidates))
	if math.IsInf(sum, 0) || math.IsNaN(sum) {
		return nil
	}
	return &sum
}

// geminiUsageOf is what an answer cost. What the upstream does not tell is
// guessed: the prompt was estimated, the answer is weighed by its bytes.
func geminiUsageOf(u usage, estimate, size int64) *geminiUsage {
	if !u.Known {
		u = usage{Completion: int64(math.Ceil(float64(size) / geminiBytesPerToken))}
	}
	total := u.Total
	if u.Prompt == 0 {
		u.Prompt, total = estimate, 0
	}
	if total == 0 {
		total = u.Prompt + u.Completion
	}
	return &geminiUsage{
		PromptTokenCount: u.Prompt, CandidatesTokenCount: max(0, u.Completion-u.Reasoning),
		TotalTokenCount: total, CachedContentTokenCount: u.Cached,
		PromptTokensDetails: textTokenDetails(u.Prompt), ThoughtsTokenCount: u.Reasoning,
	}
}

// geminiBytesPerToken is about what tokenizers make of text.
const geminiBytesPerToken = 3.6

// geminiCount is the answer of countTokens.
func geminiCount(n int64) any {
	return struct {
		TotalTokens         int64                `json:"totalTokens"`
		PromptTokensDetails []geminiTokenDetails `json:"promptTokensDetails"`
	}{n, textTokenDetails(n)}
}

// geminiError is the body of every error.
type geminiError struct {
	Error geminiErrorDetail `json:"error"`
}

type geminiErrorDetail struct {
	Code    int               `json:"code"`
	Message string            `json:"message"`
	Status  string            `json:"status"`
	Details []geminiRetryInfo `json:"details,omitempty"`
}

type geminiRetryInfo struct {
	Type       string `json:"@type"`
	RetryDelay string `json:"retryDelay"`
}

// failGemini renders an error. A prompt that the upstream's filter refused is
// none in Gemini: it is answered, with the reason and without a candidate
// (dialects B-90).
func failGemini(e *apiError) (int, any) {
	if isPromptRefusal(e) {
		return http.StatusOK, geminiPromptBlocked("")
	}
	body := geminiErrorOf(e)
	return body.Error.Code, body
}

func isPromptRefusal(e *apiError) bool {
	return e.Status == http.StatusBadRequest && e.Code == "content_filter"
}

// geminiPromptBlocked is the answer to a prompt that was refused; model may be
// "".
func geminiPromptBlocked(model string) any {
	type feedback struct {
		BlockReason string `json:"blockReason"`
	}
	type noUsage struct {
		PromptTokenCount int64 `json:"promptTokenCount"`
		TotalTokenCount  int64 `json:"totalTokenCount"`
	}
	return struct {
		PromptFeedback feedback `json:"promptFeedback"`
		UsageMetadata  noUsage  `json:"usageMetadata"`
		ModelVersion   string   `json:"modelVersion,omitempty"`
	}{PromptFeedback: feedback{"SAFETY"}, ModelVersion: model}
}

func geminiErrorOf(e *apiError) geminiError {
	d := geminiErrorDetail{Message: e.Message}
	d.Code, d.Status = geminiStatus(e)
	if e.Code == "context_length_exceeded" {
		d.Message = geminiOverflow(e.Message)
	}
	if e.RetryAfter > 0 && (d.Code == http.StatusTooManyRequests || d.Code == http.StatusServiceUnavailable) {
		seconds := int64((e.RetryAfter + time.Second - 1) / time.Second)
		d.Details = []geminiRetryInfo{{"type.googleapis.com/google.rpc.RetryInfo", strconv.FormatInt(seconds, 10) + "s"}}
	}
	return geminiError{d}
}

// geminiStatus is the HTTP status that Gemini's clients know for an error, and
// its canonical name (dialects B.8, F.2).
func geminiStatus(e *apiError) (code int, status string) {
	if e.Code == "context_length_exceeded" {
		return http.StatusBadRequest, "INVALID_ARGUMENT"
	}
	switch e.Status {
	case 401:
		return 401, "UNAUTHENTICATED"
	case 402:
		return 400, "FAILED_PRECONDITION"
	case 403:
		return 403, "PERMISSION_DENIED"
	case 404:
		return 404, "NOT_FOUND"
	case 408, 504:
		return 504, "DEADLINE_EXCEEDED"
	case 409:
		return 409, "ABORTED"
	case 405, 415:
		return e.Status, "INVALID_ARGUMENT"
	case 413:
		if e.NoRetry { // the gateway's own limit; an upstream's is no limit on the body
			return 413, "INVALID_ARGUMENT"
		}
	case 429:
		return 429, "RESOURCE_EXHAUSTED"
	case 499:
		return 499, "CANCELLED"
	case 500:
		return 500, "INTERNAL"
	case 501:
		return 501, "UNIMPLEMENTED"
	}
	if e.Status >= 400 && e.Status < 500 {
		return 400, "INVALID_ARGUMENT"
	}
	return 503, "UNAVAILABLE"
}

// numbersInText finds whole numbers, with or without commas in them, that are
// not part of a name.
var numbersInText = regexp.MustCompile(`(?:^|[^\w.,-])(\d{1,3}(?:,\d{3})+|\d{3,12})\b`)

// geminiOverflow says in Gemini's words that the prompt is too long, with the
// two largest numbers of what the upstream said.
func geminiOverflow(message string) string {
	var found []int
	for _, match := range numbersInText.FindAllStringSubmatch(message, 64) {
		if n, err := strconv.Atoi(strings.ReplaceAll(match[1], ",", "")); err == nil && n >= 256 { // less is no context
			found = append(found, n)
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	if n := len(found); n >= 2 {
		return "The input token count (" + strconv.Itoa(found[n-1]) + ") exceeds the maximum number of tokens allowed (" + strconv.Itoa(found[n-2]) + ")."
	}
	return "The input token count exceeds the maximum number of tokens allowed."
}

// failEventGemini is the frame of an error in a stream of server-sent events.
func failEventGemini(dst []byte, e *apiError) []byte {
	body, err := marshal(geminiErrorOf(e))
	if err != nil {
		return dst
	}
	return append(append(append(dst, "data: "...), body...), geminiFrameEnd...)
}

// geminiModelView is a model as Gemini lists it (dialects B.10).
type geminiModelView struct {
	Name             string   `json:"name"`
	BaseModelID      string   `json:"baseModelId"`
	Version          string   `json:"version"`
	DisplayName      string   `json:"displayName"`
	Description      string   `json:"description"`
	InputTokenLimit  int64    `json:"inputTokenLimit"`
	OutputTokenLimit int64    `json:"outputTokenLimit"`
	Methods          []string `json:"supportedGenerationMethods"`
}

// Limits of models of which the upstream tells none.
const (
	geminiInputLimit  = 131072
	geminiOutputLimit = 8192
)

// geminiModels is the list of models; the query's pageSize and pageToken cut it.
func geminiModels(list []model, query url.Values) any {
	start, err := strconv.Atoi(query.Get("pageToken"))
	if err != nil || start < 0 {
		start = 0
	}
	start = min(start, len(list))
	end := len(list)
	if size, err := strconv.Atoi(query.Get("pageSize")); err == nil && size > 0 && size < end-start {
		end = start + size
	}
	page := struct {
		Models        []any  `json:"models"`
		NextPageToken string `json:"nextPageToken,omitempty"`
	}{Models: []any{}}
	for _, m := range list[start:end] {
		page.Models = append(page.Models, geminiModel(m))
	}
	if end < len(list) {
		page.NextPageToken = strconv.Itoa(end)
	}
	return page
}

// geminiModel is one model.
func geminiModel(m model) any {
	return geminiModelView{
		Name: "models/" + m.ID, BaseModelID: m.ID, Version: "001", DisplayName: m.ID,
		InputTokenLimit: firstLimit(geminiInputLimit, member(m.Raw, "context_length"), member(m.Raw, "max_model_len"),
			member(m.Raw, "context_window"), member(member(m.Raw, "meta"), "n_ctx_train")),
		OutputTokenLimit: firstLimit(geminiOutputLimit, member(m.Raw, "max_output_tokens"), member(m.Raw, "max_completion_tokens"),
			member(member(m.Raw, "top_provider"), "max_completion_tokens")),
		Methods: []string{"generateContent", "streamGenerateContent", "countTokens"},
	}
}

// firstLimit is the first of the raw numbers that is a limit.
func firstLimit(fallback int64, raw ...[]byte) int64 {
	for _, v := range raw {
		if n := intOf(v); n > 0 {
			return n
		}
	}
	return fallback
}
