package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// responses is the dialect of OpenAI's Responses API. Tools that the client runs
// itself go upstream as functions and are mapped back; tools that OpenAI would
// run are dropped with a note. What refers to state that this gateway does not
// keep (conversation, prompt, background) is refused (dialects D).
//
// https://platform.openai.com/docs/api-reference/responses
var responses = dialect{
	name:      "responses",
	decode:    decodeResponses,
	encode:    encodeResponses,
	stream:    streamResponses,
	fail:      failResponses,
	failEvent: failEventResponses,
	ping:      ": keep-alive\n\n",
}

// responsesRequest is what a Responses answer depends on.
type responsesRequest struct {
	// Chain is the conversation up to previous_response_id, oldest first, and Items
	// are the stored items that the input names by id, each with the stamp of its
	// reasoning. The handler loads both before the request is decoded.
	Chain []storedResponse
	Items map[string]json.RawMessage
	// Keep stores the answer, and says whether that worked. It is called once, with
	// the terminal object and before a client can see that, and only when the client
	// wants the answer kept. Without Keep nothing is stored, and the object says so.
	Keep func(storedResponse) bool

	Store     bool              // the client wants the answer kept
	Previous  string            // previous_response_id
	Input     []json.RawMessage // the request's own input items, with ids; only when Store is set
	Encrypted bool              // reasoning items carry their stamp as encrypted_content
	Logprobs  bool              // text carries logprobs

	tools      []emulatedTool
	restricted bool     // only the tools in allowed may be called
	allowed    []string // upstream names

	echo responseEcho
	ids  itemIDs
	now  func() time.Time
}

// newResponsesRequest completes what the handler has prepared.
func newResponsesRequest(prepared *responsesRequest) *responsesRequest {
	r := prepared
	if r == nil {
		r = &responsesRequest{}
	}
	if r.ids.base == "" {
		r.ids.base = randomHex(itemBase / 2)
	}
	if r.now == nil {
		r.now = time.Now
	}
	return r
}

// itemIDs makes the ids of a response and of its items. They share all but the
// last four digits, which number them, so that an item's id tells in which
// response it is stored.
type itemIDs struct {
	base string // itemBase hex digits
	n    int
}

const itemBase = 28

// response is the id of the response itself.
func (d *itemIDs) response() string { return "resp_" + d.base + "0000" }

// next is the id of its next item.
func (d *itemIDs) next(prefix string) string {
	d.n++
	n := strconv.FormatInt(int64(d.n), 16)
	return prefix + d.base + strings.Repeat("0", max(0, 4-len(n))) + n
}

// responseOf is the id of the response that holds an item of that id, "" for an
// id that is not of this gateway's making.
func responseOf(item string) string {
	_, digits, ok := strings.Cut(item, "_")
	if !ok || len(digits) != itemBase+4 || strings.Trim(digits, "0123456789abcdef") != "" {
		return ""
	}
	return "resp_" + digits[:itemBase] + "0000"
}

// responsesBody is the request.
type responsesBody struct {
	Model        string          `json:"model"`
	Input        json.RawMessage `json:"input"`
	Instructions *string         `json:"instructions"`
	geminiSettings
	PreviousResponseID string          `json:"previous_response_id"`
	Conversation       json.RawMessage `json:"conversation"`
	Prompt             json.RawMessage `json:"prompt"`
	Background         *bool           `json:"background"`
	Store              *bool           `json:"store"`
	Stream             json.RawMessage `json:"stream"`
	StreamOptions      json.RawMessage `json:"stream_options"`

	Tools             []json.RawMessage `json:"tools"`
	ToolChoice        json.RawMessage   `json:"tool_choice"`
	ParallelToolCalls *bool             `json:"parallel_tool_calls"`
	MaxToolCalls      json.RawMessage   `json:"max_tool_calls"`

	MaxOutputTokens  json.RawMessage     `json:"max_output_tokens"`
	Temperature      json.RawMessage     `json:"temperature"`
	TopP             json.RawMessage     `json:"top_p"`
	PresencePenalty  json.RawMessage     `json:"presence_penalty"`
	FrequencyPenalty json.RawMessage     `json:"frequency_penalty"`
	TopLogprobs      json.RawMessage     `json:"top_logprobs"`
	Text             *responsesText      `json:"text"`
	Reasoning        *responsesReasoning `json:"reasoning"`
	Include          []string            `json:"include"`

	Truncation           string          `json:"truncation"`
	Metadata             json.RawMessage `json:"metadata"`
	User                 string          `json:"user"`
	ServiceTier          string          `json:"service_tier"`
	SafetyIdentifier     *string         `json:"safety_identifier"`
	PromptCacheKey       *string         `json:"prompt_cache_key"`
	PromptCacheRetention json.RawMessage `json:"prompt_cache_retention"`
}

// geminiSettings are Gemini's own, which may stand beside a list of its turns or
// steps, in both of its spellings (dialects A-27).
type geminiSettings struct {
	SystemInstruction      json.RawMessage `json:"systemInstruction"`
	SystemInstructionSnake json.RawMessage `json:"system_instruction"`
	GenerationConfig       json.RawMessage `json:"generationConfig"`
	GenerationConfigSnake  json.RawMessage `json:"generation_config"`
	PreviousInteraction    json.RawMessage `json:"previous_interaction_id"`
	CachedContent          json.RawMessage `json:"cachedContent"`
	CachedContentSnake     json.RawMessage `json:"cached_content"`
}

func (g *geminiSettings) system() json.RawMessage {
	return orRaw(g.SystemInstruction, g.SystemInstructionSnake)
}

func (g *geminiSettings) generation() json.RawMessage {
	return orRaw(g.GenerationConfig, g.GenerationConfigSnake)
}

// check refuses what asks for state that is not here: to answer without it would
// be an answer to another question.
func (g *geminiSettings) check() error {
	switch {
	case !isNull(g.PreviousInteraction):
		return unsupportedParameter("previous_interaction_id", "this gateway keeps no interactions; send the whole history as input, or an X-Session-Id")
	case !isNull(orRaw(g.CachedContent, g.CachedContentSnake)):
		return unsupportedParameter("cached_content", "this gateway can't see cached content; send it as input")
	}
	return nil
}

// orRaw is the first of two raw values that is there.
func orRaw(a, b json.RawMessage) json.RawMessage {
	if isNull(a) {
		return orAbsent(b)
	}
	return a
}

// responsesText is how the text of the answer is to look.
type responsesText struct {
	Format    json.RawMessage `json:"format"`
	Verbosity string          `json:"verbosity"`
}

// responsesFormat is text.format.
type responsesFormat struct {
	Type        string          `json:"type"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Schema      json.RawMessage `json:"schema"`
	Strict      json.RawMessage `json:"strict"`
}

// responsesReasoning is what the client wants of the model's reasoning.
type responsesReasoning struct {
	Effort          *string `json:"effort"`
	Summary         *string `json:"summary"`
	GenerateSummary *string `json:"generate_summary"`
}

// responsesKeys are the top-level keys that are read, or that can't change the
// answer; any other one is dropped with a note.
var responsesKeys = []string{
	"model", "input", "instructions", "system_instruction", "systemInstruction", "previous_response_id", "conversation", "prompt", "background", "store",
	"stream", "stream_options", "tools", "tool_choice", "parallel_tool_calls", "max_tool_calls", "max_output_tokens", "temperature",
	"top_p", "presence_penalty", "frequency_penalty", "top_logprobs", "text", "reasoning", "include", "truncation", "metadata", "user",
	"service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
	"moderation", "context_management", "prompt_cache_options", "client_metadata",
}

// chatKeys are keys of chat's own that may stand beside an input list on the
// chat path; there they go on as they are.
var chatKeys = []string{
	"max_tokens", "max_completion_tokens", "stop", "n", "seed", "logit_bias", "logprobs", "response_format", "reasoning_effort", "verbosity",
}

// decodeResponses turns a Responses request into a chat request. It also reads
// the input lists of other makers that come on the chat path (dialects A-20 to
//
func decodeResponses(x *exchange, body []byte) (*chatRequest, error) {
	var b responsesBody
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, typeError(err)
	}
	if b.Model == "" && x.dialect != &openai { // on the chat path the upstream judges
		return nil, missing("model")
	}
	return b.decode(x, body)
}

// decodeResponsesCount is decodeResponses for a request whose tokens are counted,
// which need not name a model.
func decodeResponsesCount(x *exchange, body []byte) (*chatRequest, error) {
	var b responsesBody
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, typeError(err)
	}
	return b.decode(x, body)
}

func (b *responsesBody) decode(x *exchange, body []byte) (*chatRequest, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	r := newResponsesRequest(x.responses)
	x.responses = r
	if b.PreviousResponseID != "" && len(r.Chain) == 0 {
		return nil, previousNotFound(b.PreviousResponseID)
	}
	b.noteUnknown(x, body)
	q := &chatRequest{Model: b.Model}
	if x.dialect == &openai {
		q.Others = b.others(body)
	}
	extra, err := b.messages(x, q)
	if err != nil {
		return nil, err
	}
	if err := b.toolsInto(x, q, extra); err != nil {
		return nil, err
	}
	if err := b.settings(x, q); err != nil {
		return nil, err
	}
	if err := b.geminiConfig(x, q); err != nil {
		return nil, err
	}
	b.streaming(x, q)
	r.Chain, r.Items = nil, nil
	return q, nil
}

// check refuses what has a wrong value, or asks for state that is not here.
func (b *responsesBody) check() error {
	switch {
	case !isNull(b.Conversation):
		return unsupportedParameter("conversation", "this gateway keeps no conversations; use previous_response_id, or send the whole history as input")
	case !isNull(b.Prompt):
		return unsupportedParameter("prompt", "this gateway has no stored prompts; send instructions and input")
	case b.Background != nil && *b.Background:
		return unsupportedParameter("background", "this gateway answers while the client waits; leave it out or set it to false")
	case b.Truncation != "" && b.Truncation != "auto" && b.Truncation != "disabled":
		return invalid("truncation", "must be \"auto\" or \"disabled\"")
	case !isNull(b.Stream) && string(b.Stream) != "true" && string(b.Stream) != "false":
		return wrongType("stream", "true or false", b.Stream)
	case !isNull(b.StreamOptions) && !isObject(b.StreamOptions):
		return wrongType("stream_options", "an object", b.StreamOptions)
	}
	if err := b.geminiSettings.check(); err != nil {
		return err
	}
	if err := b.checkNumbers(); err != nil {
		return err
	}
	return checkMetadata(b.Metadata)
}

func (b *responsesBody) checkNumbers() error {
	for _, n := range []struct {
		param string
		value json.RawMessage
	}{
		{"temperature", b.Temperature}, {"top_p", b.TopP}, {"presence_penalty", b.PresencePenalty}, {"frequency_penalty", b.FrequencyPenalty},
	} {
		if !isNull(n.value) && !isNumber(n.value) {
			return wrongType(n.param, "a number", n.value)
		}
	}
	for _, n := range []struct {
		param string
		value json.RawMessage
		least int64
	}{
		{"max_output_tokens", b.MaxOutputTokens, 1}, {"max_tool_calls", b.MaxToolCalls, 0}, {"top_logprobs", b.TopLogprobs, 0},
	} {
		if isNull(n.value) {
			continue
		}
		if !isNumber(n.value) {
			return wrongType(n.param, "an integer", n.value)
		}
		if got, err := strconv.ParseInt(string(n.value), 10, 64); err != nil || got < n.least {
			return invalid(n.param, "must be an integer of at least "+strconv.FormatInt(n.least, 10))
		}
	}
	return nil
}

// isNumber says whether a raw value is a number.
func isNumber(v []byte) bool { return len(v) > 0 && (v[0] == '-' || isDigit(v[0])) }

// checkMetadata holds metadata against the limits that OpenAI has for it.
func checkMetadata(m json.RawMessage) error {
	if isNull(m) {
		return nil
	}
	if !isObject(m) {
		return wrongType("metadata", "an object with string values", m)
	}
	n := 0
	for k, v := range members(m) {
		key := unquote(k)
		switch n++; {
		case n > 16:
			return invalid("metadata", "may have at most 16 keys")
		case utf8.RuneCountInString(key) > 64:
			return invalid("metadata", "a key may have at most 64 characters")
		case !isString(v):
			return wrongType("metadata."+key, "a string", v)
		case utf8.RuneCountInString(text(v)) > 512:
			return invalid("metadata."+key, "a value may have at most 512 characters")
		}
	}
	return nil
}

func unsupportedParameter(param, why string) *apiError {
	e := badRequest(param, "Unsupported parameter: '"+param+"': "+why+".")
	e.Code = "unsupported_parameter"
	return e
}

// noteUnknown notes the keys that have no counterpart.
func (b *responsesBody) noteUnknown(x *exchange, body []byte) {
	for k, v := range members(body) {
		key := string(k)
		if isNull(v) || slices.Contains(responsesKeys, key) || x.dialect == &openai && b.onChatPath(key) {
			continue
		}
		x.drop(printable(key))
	}
}

// onChatPath says whether a key means something on the chat path. Where Gemini's
// settings stand, chat's own do not count: both may say the same.
func (b *responsesBody) onChatPath(key string) bool {
	if b.generation() != nil {
		return key == "generation_config" || key == "generationConfig"
	}
	return slices.Contains(chatKeys, key)
}

// geminiConfig takes Gemini's generation settings over, on the chat path.
func (b *responsesBody) geminiConfig(x *exchange, q *chatRequest) error {
	config := b.generation()
	if x.dialect != &openai || config == nil {
		return nil
	}
	d := geminiDecoder{x: x, q: q, g: &geminiRequest{}}
	return d.generation(&geminiBody{generationConfig: config})
}

// others are the members of a body on the chat path that are chat's already.
func (b *responsesBody) others(body []byte) []rawMember {
	var list []rawMember
	for k, v := range members(body) {
		if key := string(k); slices.Contains(chatKeys, key) && b.onChatPath(key) && !isNull(v) && !b.says(key) {
			list = slices.DeleteFunc(list, func(m rawMember) bool { return m.Key == key })
			list = append(list, rawMember{key, bytes.Clone(v)})
		}
	}
	return list
}

// says whether the body has the Responses counterpart of a key of chat's.
func (b *responsesBody) says(key string) bool {
	switch key {
	case "max_tokens", "max_completion_tokens":
		return !isNull(b.MaxOutputTokens)
	case "response_format", "verbosity":
		return b.Text != nil
	case "reasoning_effort":
		return b.Reasoning != nil
	case "logprobs":
		return !isNull(b.TopLogprobs) || b.Include != nil
	}
	return false
}

// messages fills the request's messages, and returns the tools that stand among
// the input items.
func (b *responsesBody) messages(x *exchange, q *chatRequest) (tools []json.RawMessage, err error) {
	r := x.responses
	r.Previous = b.PreviousResponseID
	r.Store = b.Store == nil || *b.Store
	in := inputReader{x: x, keep: r.Store && x.dialect != &openai}
	for _, parent := range r.Chain {
		if err := in.stored(parent); err != nil {
			return nil, err
		}
	}
	if err := in.input(b.Input); err != nil {
		return nil, err
	}
	var system []chatPart
	if b.Instructions != nil {
		system = append(system, partText(*b.Instructions))
	}
	more, err := systemInstruction(b.system())
	if err != nil {
		return nil, err
	}
	r.Input = in.own
	q.Messages = in.messages(append(system, more...))
	if len(q.Messages) == 0 {
		return nil, invalid("input", "must have at least one item, unless instructions or previous_response_id are there")
	}
	return in.tools, nil
}

// systemInstruction is Gemini's system text, which may be a string, or an object
// with parts.
func systemInstruction(v json.RawMessage) ([]chatPart, error) {
	switch {
	case isNull(v):
		return nil, nil
	case isString(v):
		return []chatPart{partText(text(v))}, nil
	case !isObject(v):
		return nil, wrongType("system_instruction", "a string or an object with parts", v)
	}
	var parts []chatPart
	for p := range elements(member(v, "parts")) {
		if t := member(p, "text"); isString(t) {
			parts = append(parts, partText(text(t)))
		}
	}
	return parts, nil
}

// toolsInto fills the request's tools and what may be called of them.
func (b *responsesBody) toolsInto(x *exchange, q *chatRequest, extra []json.RawMessage) error {
	t := toolReader{x: x}
	for i, raw := range b.Tools {
		if err := t.add("tools["+strconv.Itoa(i)+"]", raw, ""); err != nil {
			return err
		}
	}
	for i, raw := range extra {
		if err := t.addOnce("input.tools["+strconv.Itoa(i)+"]", raw); err != nil {
			return err
		}
	}
	if err := t.choose(b.ToolChoice, q); err != nil {
		return err
	}
	x.responses.tools = t.emulated
	if len(q.Tools) > 0 && b.ParallelToolCalls != nil && !*b.ParallelToolCalls {
		q.ParallelToolCalls = json.RawMessage("false")
	}
	if len(b.Tools) == 0 && x.quirk("tools_required_with_history") == "on" {
		return repeatTools(x, q)
	}
	return nil
}

// settings fills everything else of the request, and what the answer repeats.
func (b *responsesBody) settings(x *exchange, q *chatRequest) error {
	q.Temperature, q.TopP = orAbsent(b.Temperature), orAbsent(b.TopP)
	q.PresencePenalty, q.FrequencyPenalty = orAbsent(b.PresencePenalty), orAbsent(b.FrequencyPenalty)
	q.setMaxTokens(b.MaxOutputTokens, x.quirk("max_tokens_field"))
	if err := b.text(q); err != nil {
		return err
	}
	if b.Reasoning != nil && b.Reasoning.Effort != nil {
		q.ReasoningEffort = *b.Reasoning.Effort
	}
	r := x.responses
	r.Encrypted = slices.Contains(b.Include, "reasoning.encrypted_content")
	n := intOf(b.TopLogprobs)
	if r.Logprobs = n > 0 || slices.Contains(b.Include, "message.output_text.logprobs"); r.Logprobs {
		q.Logprobs = json.RawMessage("true")
	}
	if n > 0 {
		q.TopLogprobs = b.TopLogprobs
	}
	q.User = b.User
	if b.ServiceTier != "auto" {
		q.ServiceTier = b.ServiceTier
	}
	q.SafetyIdentifier, q.PromptCacheKey = quotedOrAbsent(b.SafetyIdentifier), quotedOrAbsent(b.PromptCacheKey)
	q.PromptCacheRetention = orAbsent(b.PromptCacheRetention)
	if x.dialect != &openai {
		r.echo = b.echo()
	}
	return nil
}

func quotedOrAbsent(s *string) json.RawMessage {
	if s == nil {
		return nil
	}
	return appendQuoted(nil, *s)
}

// text fills what the answer's text is to look like (dialects D-19 to D-22).
func (b *responsesBody) text(q *chatRequest) error {
	if b.Text == nil {
		return nil
	}
	if b.Text.Verbosity != "medium" {
		q.Verbosity = b.Text.Verbosity
	}
	if isNull(b.Text.Format) {
		return nil
	}
	var f responsesFormat
	if err := json.Unmarshal(b.Text.Format, &f); err != nil {
		return typeErrorAt("text.format", err)
	}
	switch f.Type {
	case "text":
	case "json_object":
		q.ResponseFormat = &responseFormat{Type: "json_object"}
	case "json_schema":
		if f.Name == "" {
			f.Name = "response"
		}
		q.ResponseFormat = &responseFormat{Type: "json_schema", JSONSchema: &jsonSchema{f.Name, f.Description, orAbsent(f.Schema), orAbsent(f.Strict)}}
	default:
		return invalidValue("text.format.type", f.Type, "'text', 'json_object' and 'json_schema'")
	}
	return nil
}

// streaming decides whether the answer is streamed. On the chat path the client
// says itself whether it wants usage (dialects A-41).
func (b *responsesBody) streaming(x *exchange, q *chatRequest) {
	x.stream = wantsStream(b.Stream, x.header)
	switch {
	case !x.stream:
	case x.dialect == &openai:
		q.Stream, q.StreamOptions = true, orAbsent(b.StreamOptions)
	default:
		q.askForStream()
	}
}

// typeErrorAt is typeError for a value that stands at path.
func typeErrorAt(path string, err error) error {
	t, ok := err.(*json.UnmarshalTypeError)
	if !ok {
		return badJSON(err)
	}
	at := *t
	if at.Field = path; t.Field != "" {
		at.Field = path + "." + t.Field
	}
	return typeError(&at)
}

// invalidValue is the 400 for a word that is none of the known ones.
func invalidValue(param, got, accepted string) *apiError {
	e := badRequest(param, "Invalid value: '"+got+"'. Supported values are: "+accepted+".")
	e.Code = "invalid_value"
	return e
}

// responseEcho is what a response object repeats of the request, as members of
// that object with a comma before each.
type responseEcho struct {
	model    []byte // model to instructions
	settings []byte // tools to reasoning
	limits   []byte // max_output_tokens to prompt_cache_key
	labels   []byte // metadata and user
}

// echoedModel and the types below are members of a response object, in the order
// in which OpenAI documents them.
type echoedModel struct {
	Model              string  `json:"model"`
	PreviousResponseID *string `json:"previous_response_id"`
	Instructions       *string `json:"instructions"`
}

type echoedSettings struct {
	Tools             []json.RawMessage `json:"tools"`
	ToolChoice        json.RawMessage   `json:"tool_choice"`
	Truncation        string            `json:"truncation"`
	ParallelToolCalls bool              `json:"parallel_tool_calls"`
	Text              echoedText        `json:"text"`
	TopP              json.RawMessage   `json:"top_p"`
	Temperature       json.RawMessage   `json:"temperature"`
	PresencePenalty   json.RawMessage   `json:"presence_penalty"`
	FrequencyPenalty  json.RawMessage   `json:"frequency_penalty"`
	TopLogprobs       json.RawMessage   `json:"top_logprobs"`
	Reasoning         echoedReasoning   `json:"reasoning"`
}

type echoedText struct {
	Format    json.RawMessage `json:"format"`
	Verbosity string          `json:"verbosity,omitempty"`
}

type echoedReasoning struct {
	Effort  *string `json:"effort"`
	Summary *string `json:"summary"`
}

type echoedLimits struct {
	MaxOutputTokens  json.RawMessage `json:"max_output_tokens"`
	MaxToolCalls     json.RawMessage `json:"max_tool_calls"`
	SafetyIdentifier *string         `json:"safety_identifier"`
	PromptCacheKey   *string         `json:"prompt_cache_key"`
}

type echoedLabels struct {
	Metadata json.RawMessage `json:"metadata"`
	User     string          `json:"user,omitempty"`
}

// echo renders what the answer repeats, once for all the objects that hold it.
func (b *responsesBody) echo() responseEcho {
	settings := echoedSettings{
		Tools: echoTools(b.Tools), ToolChoice: orDefault(b.ToolChoice, `"auto"`), Truncation: "disabled",
		ParallelToolCalls: b.ParallelToolCalls == nil || *b.ParallelToolCalls,
		Text:              echoedText{Format: json.RawMessage(`{"type":"text"}`)},
		TopP:              orDefault(b.TopP, "1"), Temperature: orDefault(b.Temperature, "1"),
		PresencePenalty: orDefault(b.PresencePenalty, "0"), FrequencyPenalty: orDefault(b.FrequencyPenalty, "0"),
		TopLogprobs: orDefault(b.TopLogprobs, "0"),
	}
	if b.Truncation != "" {
		settings.Truncation = b.Truncation
	}
	if b.Text != nil {
		settings.Text = echoedText{orDefault(b.Text.Format, `{"type":"text"}`), b.Text.Verbosity}
	}
	if r := b.Reasoning; r != nil {
		settings.Reasoning = echoedReasoning{r.Effort, r.Summary}
		if r.Summary == nil {
			settings.Reasoning.Summary = r.GenerateSummary
		}
	}
	return responseEcho{
		model:    asMembers(echoedModel{b.Model, orNil(b.PreviousResponseID), b.Instructions}),
		settings: asMembers(settings),
		limits:   asMembers(echoedLimits{orDefault(b.MaxOutputTokens, "null"), orDefault(b.MaxToolCalls, "null"), b.SafetyIdentifier, b.PromptCacheKey}),
		labels:   asMembers(echoedLabels{orDefault(b.Metadata, "{}"), b.User}),
	}
}

// orDefault is a raw value, or def when it is null.
func orDefault(v json.RawMessage, def string) json.RawMessage {
	if isNull(v) {
		return json.RawMessage(def)
	}
	return v
}

// asMembers is a struct's JSON with a comma for the opening brace and nothing
// for the closing one.
func asMembers(v any) []byte {
	b, err := marshal(v)
	if err != nil || len(b) < 2 {
		return nil
	}
	b[0] = ','
	return b[:len(b)-1]
}

// encodeResponses turns a whole answer into a response object. It is the one
// that the same answer would have ended with as a stream.
func encodeResponses(x *exchange, c *chatResponse) any {
	s := newResponsesStream(x)
	all := chatChunk{ServiceTier: c.ServiceTier, Usage: c.Usage}
	for i := range c.Choices {
		all.Deltas = append(all.Deltas, c.Choices[i].delta())
	}
	s.finish(s.chunk(nil, &all))
	return s.object
}

// delta is the choice as if it had come in one piece.
func (c *chatChoice) delta() chatDelta {
	d := chatDelta{
		Index: c.Index, Reasoning: c.Reasoning, Text: c.Text, Refusal: c.Refusal,
		Finish: c.Finish, StopReason: c.StopReason, Logprobs: c.Logprobs, Annotations: c.Annotations,
	}
	for i, call := range c.Calls {
		d.Calls = append(d.Calls, callDelta{Call: i, ID: call.ID, Name: call.Function.Name, Args: call.Function.Arguments, Extra: call.ExtraContent})
	}
	return d
}

// failResponses is an error before the stream: OpenAI's shape.
func failResponses(e *apiError) (int, any) {
	status, body := failOpenAI(e)
	if status == 422 {
		status = 400
	}
	return status, body
}

// failEventResponses is the error of a stream in which no response has been
// created. Its fields stand flat for OpenAI's clients and nested for those of
// Open Responses (dialects D-129).
func failEventResponses(dst []byte, e *apiError) []byte {
	code := responseErrorCode(e)
	dst = append(dst, "event: error\ndata: {\"type\":\"error\",\"sequence_number\":0,\"code\":"...)
	dst = appendQuoted(dst, code)
	dst = appendQuoted(append(dst, `,"message":`...), e.Message)
	dst = appendQuoted(append(dst, `,"param":null,"error":{"type":`...), e.Type)
	dst = appendQuoted(append(dst, `,"code":`...), code)
	dst = appendQuoted(append(dst, `,"message":`...), e.Message)
	return append(dst, ",\"param\":null}}\n\ndata: [DONE]\n\n"...)
}

// responseErrorCode is the code that agents act on (dialects D-128).
func responseErrorCode(e *apiError) string {
	switch e.Code {
	case "context_length_exceeded", "rate_limit_exceeded", "insufficient_quota", "server_is_overloaded", "invalid_prompt":
		return e.Code
	}
	switch {
	case e.Type == "insufficient_quota" || e.Status == 402:
		return "insufficient_quota"
	case e.Status == 429:
		return "rate_limit_exceeded"
	case e.Status == 503:
		return "server_is_overloaded"
	case e.Status >= 400 && e.Status < 500 && e.Status != 408 && e.Status != 409:
		return "invalid_prompt" // the only code that says: the same again will not do
	}
	return "server_error"
}
