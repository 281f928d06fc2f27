package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// On POST /v1/chat/completions a body in any dialect is taken, and answered as
// chat. This file finds out which one it is (dialects A).

// A source is the dialect that a body is written in, as X-APIProxy-Dialect
// names it, with how to read it.
type source struct {
	name   string
	decode func(x *exchange, body []byte) (*chatRequest, error) // nil: it is chat
}

var (
	sourceOpenAI     = source{name: "openai"}
	sourceAnthropic  = source{"anthropic", decodeAnthropic}
	sourceGemini     = source{"gemini", decodeGemini}
	sourceResponses  = source{"responses", decodeResponses}
	sourceCompletion = source{"completion", decodeCompletion}
)

// detect decides by the top-level keys, the entries of messages and tools, and
// the headers; the first rule that matches counts.
func detect(body []byte, p *peeked, h http.Header) (source, error) {
	messages := p.value(body, fieldMessages)
	switch {
	case isArray(messages):
		if p.speaksAnthropic(body) || len(h["Anthropic-Version"]) > 0 && plainAnthropic(body) {
			return sourceAnthropic, nil
		}
		return sourceOpenAI, nil
	case !isNull(messages):
		return source{}, wrongType("messages", "an array of messages", messages)
	case !isNull(p.value(body, fieldContents)):
		return sourceGemini, nil
	case !isNull(p.value(body, fieldInput)):
		return sourceResponses, nil
	case !isNull(p.value(body, fieldPrompt)):
		return sourceCompletion, nil
	}
	e := badRequest("messages", "Missing required parameter: 'messages'.")
	e.Code = "missing_required_parameter"
	return source{}, e
}

// speaksAnthropic says whether something in the body is Anthropic's alone.
func (p *peeked) speaksAnthropic(body []byte) bool {
	if system := p.value(body, fieldSystem); isString(system) || isArray(system) {
		return true
	}
	for _, f := range []field{fieldAnthropicVersion, fieldAnthropicBeta, fieldStopSequences} {
		if !isNull(p.value(body, f)) {
			return true
		}
	}
	if choice := p.value(body, fieldToolChoice); isObject(choice) {
		switch text(member(choice, "type")) {
		case "auto", "any", "tool", "none":
			return true
		}
	}
	if p.inputSchema && slices.ContainsFunc(slices.Collect(elements(p.value(body, fieldTools))), func(t []byte) bool {
		return member(t, "input_schema") != nil
	}) {
		return true
	}
	return p.blocks && hasAnthropicBlock(p.value(body, fieldMessages))
}

// hasAnthropicBlock looks at the content blocks, which peek found to be worth a
// look.
func hasAnthropicBlock(messages []byte) bool {
	for m := range elements(messages) {
		for block := range elements(member(m, "content")) {
			switch t := text(member(block, "type")); t {
			case "tool_use", "tool_result", "server_tool_use", "redacted_thinking", "search_result":
				return true
			case "image", "document":
				if isObject(member(block, "source")) {
					return true
				}
			case "thinking":
				if isString(member(block, "thinking")) {
					return true
				}
			default:
				if strings.HasSuffix(t, "_tool_result") {
					return true
				}
			}
		}
	}
	return false
}

// openAIKeys are top-level keys that only OpenAI clients send.
var openAIKeys = []string{
	"max_completion_tokens", "stop", "n", "response_format", "stream_options", "logprobs", "logit_bias", "frequency_penalty",
	"presence_penalty", "seed", "user", "functions", "function_call", "prompt_cache_key", "reasoning_effort", "parallel_tool_calls", "store",
}

// plainAnthropic says whether a body that came with an anthropic-version header
// is Anthropic's. Converters are known to leave that header on OpenAI bodies, so
// it counts only when nothing speaks against it.
func plainAnthropic(body []byte) bool {
	maxTokens := false
	for k, v := range members(body) {
		switch key := string(k); {
		case key == "max_tokens":
			maxTokens = !isNull(v)
		case slices.Contains(openAIKeys, key):
			return false
		case key == "tools":
			for t := range elements(v) {
				if member(t, "function") != nil {
					return false
				}
			}
		case key == "messages":
			for m := range elements(v) {
				if openAIMessage(m) {
					return false
				}
			}
		}
	}
	return maxTokens
}

func openAIMessage(m []byte) bool {
	switch text(member(m, "role")) {
	case "tool", "function", "developer":
		return true
	}
	if member(m, "tool_calls") != nil {
		return true
	}
	for part := range elements(member(m, "content")) {
		switch text(member(part, "type")) {
		case "image_url", "input_audio", "file":
			return true
		}
	}
	return false
}

// completionRequest is a legacy completion, as far as chat has a counterpart
//
type completionRequest struct {
	Model            string          `json:"model"`
	Prompt           json.RawMessage `json:"prompt"`
	MaxTokens        json.RawMessage `json:"max_tokens"`
	Temperature      json.RawMessage `json:"temperature"`
	TopP             json.RawMessage `json:"top_p"`
	N                json.RawMessage `json:"n"`
	Stop             json.RawMessage `json:"stop"`
	Seed             json.RawMessage `json:"seed"`
	Stream           json.RawMessage `json:"stream"`
	StreamOptions    json.RawMessage `json:"stream_options"`
	User             string          `json:"user"`
	LogitBias        json.RawMessage `json:"logit_bias"`
	Logprobs         json.RawMessage `json:"logprobs"`
	PresencePenalty  json.RawMessage `json:"presence_penalty"`
	FrequencyPenalty json.RawMessage `json:"frequency_penalty"`
}

// decodeCompletion turns a legacy completion into a conversation of one message.
func decodeCompletion(x *exchange, body []byte) (*chatRequest, error) {
	var c completionRequest
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, typeError(err)
	}
	prompt := c.Prompt
	if isArray(prompt) {
		list := slices.Collect(elements(prompt))
		if len(list) != 1 {
			return nil, invalid("prompt", "a chat takes one prompt; send them one by one, or to /v1/completions")
		}
		prompt = list[0]
	}
	if !isString(prompt) {
		return nil, invalid("prompt", "must be a string, or an array of one string")
	}
	q := &chatRequest{
		Model: c.Model, Messages: []chatMessage{{Role: "user", Content: textContent(text(prompt))}},
		Temperature: orAbsent(c.Temperature), TopP: orAbsent(c.TopP), N: orAbsent(c.N), Seed: orAbsent(c.Seed),
		PresencePenalty: orAbsent(c.PresencePenalty), FrequencyPenalty: orAbsent(c.FrequencyPenalty), LogitBias: orAbsent(c.LogitBias),
		Stop: orAbsent(c.Stop), User: c.User,
	}
	q.setMaxTokens(c.MaxTokens, x.quirk("max_tokens_field"))
	if isNumber(c.Logprobs) {
		q.Logprobs, q.TopLogprobs = json.RawMessage("true"), number(intOf(c.Logprobs))
	}
	if v := c.Stream; !isNull(v) && string(v) != "true" && string(v) != "false" {
		return nil, wrongType("stream", "true or false", v)
	}
	if x.stream = wantsStream(c.Stream, x.header); x.stream {
		q.Stream, q.StreamOptions = true, orAbsent(c.StreamOptions)
	}
	for k, v := range members(body) {
		if key := unquote(k); !isNull(v) && !slices.Contains(completionKeys, key) {
			x.drop(key)
		}
	}
	return q, nil
}

// completionKeys are the top-level keys of a legacy completion that are read.
var completionKeys = []string{
	"model", "prompt", "max_tokens", "temperature", "top_p", "n", "stop", "seed", "stream", "stream_options", "user", "logit_bias", "logprobs",
	"presence_penalty", "frequency_penalty",
}

// orAbsent is a raw value, or nothing when it is null (dialects 0-4).
func orAbsent(v json.RawMessage) json.RawMessage {
	if isNull(v) {
		return nil
	}
	return v
}
