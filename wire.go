package main

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// The types in which translated requests are written and translated answers are
// read. Bodies that pass through never become these. Free-form JSON, such as
// schemas and numbers, stays raw, so that it keeps its order and its digits.

// chatRequest is a chat completion request that a decoder has built. Its fields
// stand in the order in which they are written (dialects G-5), so that equal
// requests give equal bytes, and a longer conversation begins with the bytes of
// the shorter one.
type chatRequest struct {
	Model             string          `json:"model,omitempty"`
	Messages          []chatMessage   `json:"messages"`
	Tools             []chatTool      `json:"tools,omitempty"`
	ToolChoice        json.RawMessage `json:"tool_choice,omitempty"`
	ParallelToolCalls json.RawMessage `json:"parallel_tool_calls,omitempty"`

	Temperature      json.RawMessage `json:"temperature,omitempty"`
	TopP             json.RawMessage `json:"top_p,omitempty"`
	TopK             json.RawMessage `json:"top_k,omitempty"`
	N                json.RawMessage `json:"n,omitempty"`
	Seed             json.RawMessage `json:"seed,omitempty"`
	PresencePenalty  json.RawMessage `json:"presence_penalty,omitempty"`
	FrequencyPenalty json.RawMessage `json:"frequency_penalty,omitempty"`
	LogitBias        json.RawMessage `json:"logit_bias,omitempty"`
	Logprobs         json.RawMessage `json:"logprobs,omitempty"`
	TopLogprobs      json.RawMessage `json:"top_logprobs,omitempty"`
	Stop             json.RawMessage `json:"stop,omitempty"`
	ReasoningEffort  string          `json:"reasoning_effort,omitempty"`
	Verbosity        string          `json:"verbosity,omitempty"`

	MaxTokens           json.RawMessage `json:"max_tokens,omitempty"`
	MaxCompletionTokens json.RawMessage `json:"max_completion_tokens,omitempty"`

	ResponseFormat *responseFormat `json:"response_format,omitempty"`

	ServiceTier          string          `json:"service_tier,omitempty"`
	User                 string          `json:"user,omitempty"`
	SafetyIdentifier     json.RawMessage `json:"safety_identifier,omitempty"`
	PromptCacheKey       json.RawMessage `json:"prompt_cache_key,omitempty"`
	PromptCacheRetention json.RawMessage `json:"prompt_cache_retention,omitempty"`
	ContinueFinalMessage bool            `json:"continue_final_message,omitempty"`
	AddGenerationPrompt  *bool           `json:"add_generation_prompt,omitempty"`

	// Others are members that the client sent in OpenAI's own form, kept as they
	// are (dialects A-10).
	Others []rawMember `json:"-"`

	Stream        bool            `json:"stream,omitempty"`
	StreamOptions json.RawMessage `json:"stream_options,omitempty"`
}

// rawMember is a member of an object, kept as it came.
type rawMember struct {
	Key   string
	Value json.RawMessage
}

// body is the request as JSON.
func (q *chatRequest) body() ([]byte, error) {
	b, err := marshal(q)
	if err != nil || len(q.Others) == 0 {
		return b, err
	}
	b = b[:len(b)-1]
	for _, m := range q.Others {
		b = appendQuoted(append(b, ','), m.Key)
		b = append(append(b, ':'), m.Value...)
	}
	return append(b, '}'), nil
}

// chatMessage is one message of a chatRequest.
type chatMessage struct {
	Role             string          `json:"role"`
	ToolCallID       string          `json:"tool_call_id,omitempty"`
	Content          chatContent     `json:"content"`
	ReasoningContent string          `json:"reasoning_content,omitempty"`
	Reasoning        string          `json:"reasoning,omitempty"`
	ReasoningDetails json.RawMessage `json:"reasoning_details,omitempty"`
	ToolCalls        []chatToolCall  `json:"tool_calls,omitempty"`

	// Answers is the function whose result this is, when the client has not said
	// which call it answers and the request does not hold one; ToolCallID is then
	// the gateway's.
	Answers string `json:"-"`

	// Raw is a message in OpenAI's own form, which goes on as it is; the other
	// fields are then unused.
	Raw json.RawMessage `json:"-"`
}

// MarshalJSON writes Raw if it is there.
func (m chatMessage) MarshalJSON() ([]byte, error) {
	if m.Raw != nil {
		return m.Raw, nil
	}
	type plain chatMessage
	return marshal(plain(m))
}

// chatContent is a message's content: null, a string, or parts.
type chatContent struct {
	Text  string
	Parts []chatPart // takes precedence over Text
	Null  bool
}

// MarshalJSON writes the form that is set.
func (c chatContent) MarshalJSON() ([]byte, error) {
	switch {
	case c.Null:
		return []byte("null"), nil
	case c.Parts != nil:
		return marshal(c.Parts)
	}
	return appendQuoted(nil, c.Text), nil
}

func textContent(s string) chatContent { return chatContent{Text: s} }

// chatPart is one part of a message's content.
type chatPart struct {
	Type         string          `json:"type"`
	Text         *string         `json:"text,omitempty"`
	ImageURL     *chatImage      `json:"image_url,omitempty"`
	InputAudio   *chatAudio      `json:"input_audio,omitempty"`
	File         *chatFile       `json:"file,omitempty"`
	CacheControl json.RawMessage `json:"cache_control,omitempty"`

	Raw json.RawMessage `json:"-"` // a part in OpenAI's own form, as it is
}

// MarshalJSON writes Raw if it is there.
func (p chatPart) MarshalJSON() ([]byte, error) {
	if p.Raw != nil {
		return p.Raw, nil
	}
	type plain chatPart
	return marshal(plain(p))
}

type chatImage struct {
	URL    string `json:"url"`
	Detail string `json:"detail,omitempty"`
}

type chatAudio struct {
	Data   string `json:"data"`
	Format string `json:"format"`
}

type chatFile struct {
	Filename string `json:"filename,omitempty"`
	FileData string `json:"file_data,omitempty"`
	FileID   string `json:"file_id,omitempty"`
}

func partText(s string) chatPart { return chatPart{Type: "text", Text: &s} }

func partImage(url, detail string) chatPart {
	return chatPart{Type: "image_url", ImageURL: &chatImage{URL: url, Detail: detail}}
}

func partFile(name, data string) chatPart {
	return chatPart{Type: "file", File: &chatFile{Filename: name, FileData: data}}
}

// joinParts is the content of a user, system or tool message: a string when all
// parts are text, joined by blank lines, else the parts in their order. Empty
// text is left out (dialects 0, text joining).
func joinParts(parts []chatPart) chatContent {
	parts = slices.DeleteFunc(slices.Clone(parts), func(p chatPart) bool {
		return p.Raw == nil && p.Type == "text" && (p.Text == nil || *p.Text == "")
	})
	texts := make([]string, 0, len(parts))
	for _, p := range parts {
		if p.Raw != nil || p.Type != "text" || p.CacheControl != nil {
			return chatContent{Parts: parts}
		}
		texts = append(texts, *p.Text)
	}
	return textContent(strings.Join(texts, "\n\n"))
}

// chatToolCall is a call that an assistant has made.
type chatToolCall struct {
	ID           string           `json:"id"`
	Type         string           `json:"type"`
	Function     chatFunctionCall `json:"function"`
	ExtraContent json.RawMessage  `json:"extra_content,omitempty"`

	// Replay names what is kept of the call, where its client leaves ids out and ID
	// is the gateway's.
	Replay string `json:"-"`
}

type chatFunctionCall struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"` // JSON, as text
}

// functionCall is a call of a function.
func functionCall(id, name, arguments string) chatToolCall {
	return chatToolCall{ID: id, Type: "function", Function: chatFunctionCall{name, arguments}}
}

// chatTool is a function that the model may call.
type chatTool struct {
	Type     string       `json:"type"`
	Function chatFunction `json:"function"`

	Raw json.RawMessage `json:"-"` // a tool in OpenAI's own form, as it is
}

// MarshalJSON writes Raw if it is there.
func (t chatTool) MarshalJSON() ([]byte, error) {
	if t.Raw != nil {
		return t.Raw, nil
	}
	type plain chatTool
	return marshal(plain(t))
}

type chatFunction struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Strict      json.RawMessage `json:"strict,omitempty"`
}

// functionChoice is the tool_choice that forces one function.
func functionChoice(name string) json.RawMessage {
	b := append([]byte(`{"type":"function","function":{"name":`), appendQuoted(nil, name)...)
	return append(b, `}}`...)
}

type responseFormat struct {
	Type       string      `json:"type"`
	JSONSchema *jsonSchema `json:"json_schema,omitempty"`
}

type jsonSchema struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"schema,omitempty"`
	Strict      json.RawMessage `json:"strict,omitempty"`
}

// askForStream makes the request a streaming one that tells its usage.
func (q *chatRequest) askForStream() {
	q.Stream = true
	q.StreamOptions = json.RawMessage(`{"include_usage":true}`)
}

// setMaxTokens puts the token limit into the field that the upstream takes
// (dialects E-12).
func (q *chatRequest) setMaxTokens(n json.RawMessage, field string) {
	if isNull(n) {
		return
	}
	if field == "max_completion_tokens" {
		q.MaxCompletionTokens = n
		return
	}
	q.MaxTokens = n
}

// chatResponse is a whole answer, with what upstreams do differently made alike.
type chatResponse struct {
	ID          string
	Created     int64 // Unix seconds; 0 when the upstream does not tell
	ServiceTier string
	Choices     []chatChoice
	Usage       usage

	texts []choiceTexts // of Choices, while they grow
}

// chatChoice is one of the answers in a chatResponse.
type chatChoice struct {
	Index       int
	Text        string // visible
	Reasoning   reasoning
	Refusal     string
	Calls       []chatToolCall // ids may be ""
	Finish      string         // finish_reason; "" when there is none
	StopReason  string         // vendor field: the stop sequence that matched
	Logprobs    json.RawMessage
	Annotations json.RawMessage
}

// reasoning is a model's reasoning, and where it stood.
type reasoning struct {
	Text    string
	Field   reasoningField  // 0 when there is none
	Details json.RawMessage // all entries of reasoning_details so far, joined by commas
}

// reasoningField says in which field of the wire reasoning came, and so must go
// back (dialects E-24).
type reasoningField byte

const (
	reasoningContent reasoningField = 'c' // reasoning_content
	reasoningPlain   reasoningField = 'r' // reasoning
	reasoningList    reasoningField = 'd' // reasoning_details
	reasoningInText  reasoningField = 't' // <think> tags or content parts; not sent back
)

// chatChunk is one event of a chat stream, with what upstreams do differently
// made alike. Any chunk may carry all of it, or nothing.
type chatChunk struct {
	ID          string
	Created     int64
	ServiceTier string
	Deltas      []chatDelta
	Usage       usage // Known when the chunk has it
}

// chatDelta is what a chunk adds to one choice. Its parts are in the order in
// which they are to be shown: reasoning, text, refusal, calls, finish.
type chatDelta struct {
	Index       int
	Reasoning   reasoning
	Text        string
	Refusal     string
	Calls       []callDelta
	Finish      string // finish_reason; the first that comes counts
	StopReason  string
	Logprobs    json.RawMessage
	Annotations json.RawMessage
}

// callDelta is what a chunk adds to a tool call.
type callDelta struct {
	Call  int    // the call, numbered from 0 in the order of arrival within its choice
	ID    string // as far as known by now; "" if the upstream gave none yet
	Name  string // as far as known by now
	Args  string // the new piece of the arguments' text
	Extra json.RawMessage
}

// number is a raw JSON number.
func number(n int64) json.RawMessage { return strconv.AppendInt(nil, n, 10) }
