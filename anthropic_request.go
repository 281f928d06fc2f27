package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// anthropicRequest is what the answer to a Messages request depends on.
type anthropicRequest struct {
	ShowThinking  bool     // the client wants thinking blocks (dialects C-81)
	OmitThinking  bool     // their text stays empty, only the signature is sent (C-25)
	StopSequences []string // to tell which one has matched (C-89)
}

// anthropicBody is a Messages request as it is sent. Fields that are not here
// have no counterpart in chat; see anthropicSilent.
type anthropicBody struct {
	Model         string             `json:"model"`
	Messages      []json.RawMessage  `json:"messages"`
	System        json.RawMessage    `json:"system"` // a string, or text blocks
	MaxTokens     anthropicNumber    `json:"max_tokens"`
	StopSequences []string           `json:"stop_sequences"`
	Temperature   anthropicNumber    `json:"temperature"`
	TopP          anthropicNumber    `json:"top_p"`
	TopK          anthropicNumber    `json:"top_k"`
	Metadata      anthropicMetadata  `json:"metadata"`
	Stream        *bool              `json:"stream"`
	ServiceTier   string             `json:"service_tier"`
	Thinking      *anthropicThinking `json:"thinking"`
	OutputConfig  anthropicOutput    `json:"output_config"`
	OutputFormat  *anthropicFormat   `json:"output_format"` // the older name of output_config.format
	Tools         []json.RawMessage  `json:"tools"`
	ToolChoice    json.RawMessage    `json:"tool_choice"`
	MCPServers    []json.RawMessage  `json:"mcp_servers"`
	Thread        json.RawMessage    `json:"thread"`
}

type anthropicMetadata struct {
	UserID string `json:"user_id"`
}

type anthropicThinking struct {
	Type         string `json:"type"`
	BudgetTokens *int64 `json:"budget_tokens"`
	Display      string `json:"display"`
}

type anthropicOutput struct {
	Effort string           `json:"effort"`
	Format *anthropicFormat `json:"format"`
}

type anthropicFormat struct {
	Type   string          `json:"type"`
	Schema json.RawMessage `json:"schema"`
}

type anthropicTool struct {
	Type        string          `json:"type"`
	Name        string          `json:"name"`
	Description string          `json:"description"`
	InputSchema json.RawMessage `json:"input_schema"`
	Strict      bool            `json:"strict"`
}

type anthropicChoice struct {
	Type            string `json:"type"`
	Name            string `json:"name"`
	DisableParallel bool   `json:"disable_parallel_tool_use"`
}

// anthropicNumber is a number with the digits that it was written with.
type anthropicNumber json.RawMessage

// UnmarshalJSON takes a number, or null for none.
func (n *anthropicNumber) UnmarshalJSON(v []byte) error {
	switch {
	case string(v) == "null":
	case v[0] == '-' || isDigit(v[0]):
		*n = bytes.Clone(v)
	default:
		kind := "an object or array"
		if v[0] == '"' {
			kind = "string"
		} else if v[0] == 't' || v[0] == 'f' {
			kind = "bool"
		}
		return &json.UnmarshalTypeError{Value: kind, Type: reflect.TypeFor[float64]()}
	}
	return nil
}

// anthropicKnown are the top-level keys that anthropicBody reads.
var anthropicKnown = []string{
	"model", "messages", "system", "max_tokens", "stop_sequences", "temperature", "top_p", "top_k", "metadata", "stream", "service_tier",
	"thinking", "output_config", "output_format", "tools", "tool_choice", "mcp_servers", "thread",
}

// anthropicSilent are the top-level keys that are left out without a note: they
// can't change the answer of a chat upstream (dialects C-26, C-27).
var anthropicSilent = []string{
	"cache_control", "container", "context_management", "inference_geo", "speed", "diagnostics", "user_profile_id", "workspace_id",
	"fallbacks", "anthropic_version", "anthropic_beta",
}

// anthropicDecoder turns one Messages request into a chat request.
type anthropicDecoder struct {
	x *exchange
	// mixed says that the body came on the chat path, where it may hold messages,
	// parts, tools and keys in OpenAI's form; they go on as they are (dialects A-10).
	mixed     bool
	passCache bool // quirk cache_control:pass
	files     bool // quirk files:on
	added     []addedTool
}

// decodeAnthropic turns a Messages request, or the body of count_tokens, into a
// chat request (dialects C.2 to C.4).
func decodeAnthropic(x *exchange, body []byte) (*chatRequest, error) {
	d := &anthropicDecoder{
		x: x, mixed: x.dialect == &openai,
		passCache: x.quirk("cache_control") == "pass", files: x.quirk("files") == "on",
	}
	var in anthropicBody
	if err := unmarshalAt("", body, &in); err != nil {
		return nil, err
	}
	if err := d.check(&in); err != nil {
		return nil, err
	}
	q := &chatRequest{
		Model: in.Model, Messages: []chatMessage{},
		Temperature: json.RawMessage(in.Temperature), TopP: json.RawMessage(in.TopP), TopK: json.RawMessage(in.TopK),
		User: shortUserID(in.Metadata.UserID),
	}
	for _, step := range []func(*anthropicBody, *chatRequest) error{d.conversation, d.tools, d.output} {
		if err := step(&in, q); err != nil {
			return nil, err
		}
	}
	q.setMaxTokens(json.RawMessage(in.MaxTokens), x.quirk("max_tokens_field"))
	d.effort(&in, q)
	d.tier(&in, q)
	d.stream(&in, q, body)
	d.others(&in, q, body)
	return q, nil
}

// unmarshalAt decodes v, which stands at path in the body; an error names the
// field from the top.
func unmarshalAt(path string, v []byte, to any) error {
	err := json.Unmarshal(v, to)
	if err == nil {
		return nil
	}
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		t.Field = strings.Trim(path+"."+t.Field, ".")
	}
	return typeError(err)
}

// check refuses what no conversion can make sense of.
func (d *anthropicDecoder) check(in *anthropicBody) error {
	if !isNull(in.Thread) {
		return threadUnsupported()
	}
	if len(in.Messages) == 0 && !d.mixed {
		return invalid("messages", "at least one message is required")
	}
	if in.MaxTokens != nil && !isPositiveInteger(string(in.MaxTokens)) {
		return invalid("max_tokens", "must be an integer greater than 0, not "+string(in.MaxTokens))
	}
	return nil
}

// threadUnsupported makes the official SDK's tool runner send the whole
// conversation instead of what is new in it (dialects C-29).
func threadUnsupported() *apiError {
	e := invalid("thread", "this gateway keeps no server-side threads; send the whole conversation in messages")
	e.Details = struct {
		ErrorCode   string   `json:"error_code"`
		Unsupported []string `json:"unsupported"`
	}{"thread_unsupported_request", []string{"thread"}}
	return e
}

func isPositiveInteger(s string) bool {
	return strings.Trim(s, "0123456789") == "" && strings.Trim(s, "0") != ""
}

// maxUserID is how long an id may be that goes upstream as it is, in bytes.
const maxUserID = 512

// shortUserID keeps a user's id within what upstreams take, and still tells
// users apart (dialects C-17).
func shortUserID(id string) string {
	if len(id) <= maxUserID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// conversation converts the system prompt and the messages.
func (d *anthropicDecoder) conversation(in *anthropicBody, q *chatRequest) error {
	if !isNull(in.System) {
		content, err := d.systemText("system", in.System)
		if err != nil {
			return err
		}
		addSystem(q, content)
	}
	for i, raw := range in.Messages {
		if err := d.message("messages["+strconv.Itoa(i)+"]", raw, q); err != nil {
			return err
		}
	}
	if d.x.quirk("alternate") == "strict" {
		q.Messages = mergeUsers(q.Messages)
	}
	if n := len(q.Messages); n > 0 && d.x.quirk("prefill") == "continue" {
		if last := &q.Messages[n-1]; last.Role == "assistant" && len(last.ToolCalls) == 0 {
			q.ContinueFinalMessage, q.AddGenerationPrompt = true, new(bool)
		}
	}
	return nil
}

// mergeUsers joins user messages that follow each other, for templates that
// insist on alternation (dialects C-59).
func mergeUsers(list []chatMessage) []chatMessage {
	merged := list[:0]
	plain := func(m *chatMessage) bool { return m.Raw == nil && m.Role == "user" && m.Content.Parts == nil }
	for i := 0; i < len(list); {
		m := list[i]
		var texts []string
		for ; i < len(list) && plain(&list[i]); i++ {
			texts = append(texts, list[i].Content.Text)
		}
		if len(texts) > 0 {
			m.Content = textContent(strings.Join(texts, "\n\n"))
		} else {
			i++
		}
		merged = append(merged, m)
	}
	return merged
}

// tools converts the tools and which of them are to be called (dialects C.4).
func (d *anthropicDecoder) tools(in *anthropicBody, q *chatRequest) error {
	var gone []string // names of tools that were left out
	for i, raw := range in.Tools {
		if d.mixed && member(raw, "function") != nil {
			q.Tools = append(q.Tools, chatTool{Raw: raw})
			continue
		}
		t, function, err := d.function("tools["+strconv.Itoa(i)+"]", raw)
		if err != nil {
			return err
		}
		if function == nil {
			gone = append(gone, t.Name)
			continue
		}
		q.Tools = append(q.Tools, chatTool{Type: "function", Function: *function})
	}
	for _, added := range d.added { // the same one may be added again after it was withdrawn
		_, function, err := d.function(added.path, added.raw)
		if err != nil {
			return err
		}
		if function != nil && !slices.ContainsFunc(q.Tools, func(t chatTool) bool { return t.Function.Name == function.Name }) {
			q.Tools = append(q.Tools, chatTool{Type: "function", Function: *function})
		}
	}
	return d.toolChoice(in.ToolChoice, gone, q)
}

func (d *anthropicDecoder) function(path string, raw json.RawMessage) (t anthropicTool, f *chatFunction, err error) {
	if err = unmarshalAt(path, raw, &t); err == nil {
		f, err = d.tool(path, &t)
	}
	return t, f, err
}

// tool is one tool as a function; nil when chat has no counterpart to it.
func (d *anthropicDecoder) tool(path string, t *anthropicTool) (*chatFunction, error) {
	f := &chatFunction{Description: t.Description}
	switch {
	case t.Type == "" || t.Type == "custom":
		if !isNull(t.InputSchema) && !isObject(t.InputSchema) {
			return nil, invalid(path+".input_schema", "must be a JSON Schema object")
		}
		f.Parameters = orAbsent(t.InputSchema)
		if t.Strict {
			f.Strict = json.RawMessage("true")
		}
	case builtInTool(t.Type, f):
	case d.x.quirk("hosted_tools") == "error":
		return nil, invalid(path+".type", fmt.Sprintf("%q runs on Anthropic's servers, or has no schema that is known here; accepted: custom, bash_*, text_editor_* and memory_* tools", t.Type))
	default:
		d.x.drop(t.Type)
		return nil, nil
	}
	if t.Name == "" {
		return nil, invalid(path+".name", "must be the tool's name")
	}
	f.Name = d.x.safeToolName(t.Name)
	return f, nil
}

// The tools that Anthropic defines and clients execute. Models of other vendors
// don't know them by heart, so they get a description and a schema (dialects
// C-66).
const (
	bashTool     = "Run a command in a bash session that lasts, and return what it prints. Set restart to true to begin a new session."
	editorTool   = "View, create and edit text files. command is what to do, path the file or directory; create takes file_text, str_replace old_str and new_str, insert insert_line and insert_text, view optionally view_range."
	memoryTool   = "Keep notes in files under /memories, to be read in later conversations. command is what to do; view and delete take path, create path and file_text, str_replace path, old_str and new_str, insert path, insert_line and insert_text, rename old_path and new_path."
	bashSchema   = `{"type":"object","properties":{"command":{"type":"string"},"restart":{"type":"boolean"}}}`
	editorSchema = `{"type":"object","properties":{"command":{"type":"string","enum":["view","create","str_replace","insert"]},"path":{"type":"string"},"file_text":{"type":"string"},"old_str":{"type":"string"},"new_str":{"type":"string"},"insert_line":{"type":"integer"},"insert_text":{"type":"string"},"view_range":{"type":"array","items":{"type":"integer"}}},"required":["command","path"]}`
	memorySchema = `{"type":"object","properties":{"command":{"type":"string","enum":["view","create","str_replace","insert","delete","rename"]},"path":{"type":"string"},"file_text":{"type":"string"},"old_str":{"type":"string"},"new_str":{"type":"string"},"insert_line":{"type":"integer"},"insert_text":{"type":"string"},"view_range":{"type":"array","items":{"type":"integer"}},"old_path":{"type":"string"},"new_path":{"type":"string"}},"required":["command"]}`
)

// builtInTool fills f in for a tool type of those; versions end in a date.
func builtInTool(typ string, f *chatFunction) bool {
	switch {
	case strings.HasPrefix(typ, "bash_"):
		f.Description, f.Parameters = bashTool, json.RawMessage(bashSchema)
	case strings.HasPrefix(typ, "text_editor_"):
		f.Description, f.Parameters = editorTool, json.RawMessage(editorSchema)
	case strings.HasPrefix(typ, "memory_"):
		f.Description, f.Parameters = memoryTool, json.RawMessage(memorySchema)
	default:
		return false
	}
	return true
}

// toolChoice converts tool_choice, which means nothing without tools (dialects
// C-68 to C-73).
func (d *anthropicDecoder) toolChoice(raw json.RawMessage, gone []string, q *chatRequest) error {
	if isNull(raw) {
		return nil
	}
	var c anthropicChoice
	if typ := member(raw, "type"); d.mixed && (isString(raw) || text(typ) == "function" || text(typ) == "allowed_tools") {
		q.ToolChoice = raw
		return nil
	}
	if err := unmarshalAt("tool_choice", raw, &c); err != nil {
		return err
	}
	if c.Type == "tool" && slices.Contains(gone, c.Name) {
		return invalid("tool_choice.name", fmt.Sprintf("the tool %q can't be called here, since it has no counterpart in chat; accepted: a tool with an input_schema", c.Name))
	}
	choice, err := chatToolChoice(d.x, &c)
	if err != nil || len(q.Tools) == 0 {
		return err
	}
	q.ToolChoice = choice
	if c.DisableParallel {
		q.ParallelToolCalls = json.RawMessage("false")
	}
	return nil
}

func chatToolChoice(x *exchange, c *anthropicChoice) (json.RawMessage, error) {
	switch c.Type {
	case "auto":
		return nil, nil
	case "any":
		return json.RawMessage(`"required"`), nil
	case "none":
		return json.RawMessage(`"none"`), nil
	case "tool":
		if c.Name == "" {
			return nil, invalid("tool_choice.name", "must be the name of a tool")
		}
		return functionChoice(x.safeToolName(c.Name)), nil
	}
	return nil, invalid("tool_choice.type", fmt.Sprintf("%q is unknown; accepted: auto, any, tool, none", c.Type))
}

// output converts what the answer shall look like (dialects C-14, C-24).
func (d *anthropicDecoder) output(in *anthropicBody, q *chatRequest) error {
	if len(in.StopSequences) > 0 {
		stop, err := marshal(in.StopSequences)
		if err != nil {
			return err
		}
		q.Stop = stop
	}
	format, path := in.OutputConfig.Format, "output_config.format"
	if format == nil {
		format, path = in.OutputFormat, "output_format"
	}
	switch {
	case format == nil:
	case format.Type != "json_schema":
		d.x.drop(path)
	case !isObject(format.Schema):
		return invalid(path+".schema", "must be a JSON Schema object")
	default:
		q.ResponseFormat = &responseFormat{Type: "json_schema", JSONSchema: &jsonSchema{
			Name: "output", Schema: format.Schema, Strict: json.RawMessage("true"),
		}}
	}
	return nil
}

// Budgets of thinking, in tokens, up to which an effort counts as low or medium
// (dialects C-21).
const (
	lowBudget    = 2048
	mediumBudget = 16384
)

// effort converts how much the model shall think: switched off wins over a named
// effort, which wins over a budget (dialects C-20 to C-25).
func (d *anthropicDecoder) effort(in *anthropicBody, q *chatRequest) {
	t := in.Thinking
	if t == nil {
		t = &anthropicThinking{}
	}
	d.x.anthropic = &anthropicRequest{
		ShowThinking: in.Thinking != nil && t.Type != "disabled" || d.x.quirk("thinking") == "always",
		OmitThinking: t.Display == "omitted", StopSequences: in.StopSequences,
	}
	switch {
	case t.Type == "disabled":
		q.ReasoningEffort = "none"
	case in.OutputConfig.Effort != "":
		q.ReasoningEffort = d.effortWord(in.OutputConfig.Effort)
	case t.Type != "enabled" || t.BudgetTokens == nil:
	case *t.BudgetTokens <= lowBudget:
		q.ReasoningEffort = "low"
	case *t.BudgetTokens <= mediumBudget:
		q.ReasoningEffort = "medium"
	default:
		q.ReasoningEffort = "high"
	}
}

// effortWord is a named effort as the upstream has it.
func (d *anthropicDecoder) effortWord(word string) string {
	switch word {
	case "low", "medium", "high":
		return word
	case "xhigh", "max":
		if slices.Contains(strings.Split(d.x.quirk("efforts"), "+"), word) {
			return word
		}
		return "high"
	}
	d.x.drop("output_config.effort")
	return ""
}

func (d *anthropicDecoder) tier(in *anthropicBody, q *chatRequest) {
	switch in.ServiceTier {
	case "", "auto":
	case "standard_only":
		q.ServiceTier = "default"
	default:
		d.x.drop("service_tier")
	}
}

// stream asks for a stream if the client did. On the chat path, usage is asked
// for only if the client's own stream_options do (dialects A-41).
func (d *anthropicDecoder) stream(in *anthropicBody, q *chatRequest, body []byte) {
	var asked []byte
	if in.Stream != nil {
		asked = strconv.AppendBool(nil, *in.Stream)
	}
	d.x.stream = wantsStream(asked, d.x.header)
	switch {
	case !d.x.stream:
	case d.mixed:
		q.Stream = true
		q.StreamOptions = orAbsent(member(body, "stream_options"))
	default:
		q.askForStream()
	}
}

// others deals with the keys that section C does not name: on the chat path they
// are OpenAI's and go on, elsewhere they are noted and left out.
func (d *anthropicDecoder) others(in *anthropicBody, q *chatRequest, body []byte) {
	if len(in.MCPServers) > 0 {
		d.x.drop("mcp_servers")
	}
	for k, v := range members(body) {
		key := unquote(k)
		switch {
		case slices.Contains(anthropicKnown, key), slices.Contains(anthropicSilent, key), isNull(v):
		case !d.mixed:
			d.x.drop(key)
		case key != "stream_options":
			q.takeOver(key, v)
		}
	}
}

// takeOver puts a key in OpenAI's form into the request, in place of what was
// converted to the same.
func (q *chatRequest) takeOver(key string, value json.RawMessage) {
	switch key {
	case "stop":
		q.Stop = nil
	case "user":
		q.User = ""
	case "reasoning_effort":
		q.ReasoningEffort = ""
	case "response_format":
		q.ResponseFormat = nil
	case "parallel_tool_calls":
		q.ParallelToolCalls = nil
	case "max_completion_tokens":
		q.MaxCompletionTokens = nil
	}
	q.Others = append(q.Others, rawMember{key, value})
}
