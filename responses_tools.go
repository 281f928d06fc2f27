package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// An emulatedTool is a tool that goes upstream as a function, and whose calls
// come back to the client as what they are to it (dialects D.4).
type emulatedTool struct {
	upstream  string // the function's name
	kind      toolKind
	name      string // the client's name
	namespace string // "" for none
}

type toolKind int

const (
	toolFunction toolKind = iota
	toolCustom
	toolLocalShell
	toolShell
	toolApplyPatch
	toolSearch
)

// builtinTools are tools of OpenAI's that the client runs, by type.
var builtinTools = []struct {
	kind        toolKind
	typ         string
	description string
	parameters  string
}{
	{toolLocalShell, "local_shell", "Runs a command in a shell on the user's machine.",
		`{"type":"object","properties":{"command":{"type":"array","items":{"type":"string"},"description":"The command and its arguments."},"timeout_ms":{"type":"integer"},"user":{"type":"string"},"working_directory":{"type":"string"},"env":{"type":"object","additionalProperties":{"type":"string"}}},"required":["command"]}`},
	{toolShell, "shell", "Runs shell commands and returns what they print.",
		`{"type":"object","properties":{"commands":{"type":"array","items":{"type":"string"},"description":"The commands to run, one after another."},"timeout_ms":{"type":"integer"},"max_output_length":{"type":"integer"}},"required":["commands"]}`},
	{toolApplyPatch, "apply_patch", "Creates, updates or deletes a file by a patch.",
		`{"type":"object","properties":{"operation":{"type":"object","properties":{"type":{"type":"string","enum":["create_file","update_file","delete_file"]},"path":{"type":"string"},"diff":{"type":"string","description":"The file's content as added lines, or the change as a V4A diff; none for delete_file."}},"required":["type","path"]}},"required":["operation"]}`},
}

const (
	customParameters = `{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}`
	emptyParameters  = `{"type":"object","properties":{}}`
)

// responsesTool is a tool of any type.
type responsesTool struct {
	Type        string            `json:"type"`
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Parameters  json.RawMessage   `json:"parameters"`
	Strict      json.RawMessage   `json:"strict"`
	Format      toolFormat        `json:"format"`
	Tools       []json.RawMessage `json:"tools"` // of a namespace
	Execution   string            `json:"execution"`
	Function    json.RawMessage   `json:"function"` // of a tool in chat's form
}

// toolFormat is what the input of a custom tool looks like.
type toolFormat struct {
	Type       string `json:"type"`
	Syntax     string `json:"syntax"`
	Definition string `json:"definition"`
}

// A toolReader turns the tools of a request into functions.
type toolReader struct {
	x        *exchange
	tools    []chatTool
	emulated []emulatedTool
	dropped  []string // types of tools that were left out
}

// add reads one tool; namespace is the one that it stands in.
func (t *toolReader) add(path string, raw []byte, namespace string) error {
	var tool responsesTool
	if err := json.Unmarshal(raw, &tool); err != nil {
		return typeErrorAt(path, err)
	}
	switch tool.Type {
	case "function":
		return t.function(path, raw, &tool, namespace)
	case "custom":
		return t.custom(path, &tool, namespace)
	case "namespace":
		return t.namespace(path, &tool)
	case "tool_search":
		if tool.Execution == "client" {
			return t.emulate(path, emulatedTool{"", toolSearch, "tool_search", ""}, chatFunction{Description: tool.Description, Parameters: orDefault(tool.Parameters, emptyParameters)})
		}
	}
	if tool.Type == "" && t.x.dialect == &openai {
		d := geminiDecoder{x: t.x, q: &chatRequest{}}
		if err := d.tools(&geminiBody{tools: raw}); err != nil || len(d.q.Tools) > 0 {
			t.tools = append(t.tools, d.q.Tools...)
			return err
		}
	}
	for _, b := range builtinTools {
		if b.typ == tool.Type {
			return t.emulate(path, emulatedTool{"", b.kind, b.typ, ""}, chatFunction{Description: b.description, Parameters: json.RawMessage(b.parameters)})
		}
	}
	return t.drop(path, tool.Type)
}

// drop leaves a tool out that only OpenAI can run, or that is not known.
func (t *toolReader) drop(path, typ string) error {
	if typ == "" {
		return missing(path + ".type")
	}
	if t.x.quirk("hosted_tools") == "error" {
		return unsupportedTool(path+".type", typ)
	}
	t.dropped = append(t.dropped, typ)
	t.x.drop("tools." + printable(typ))
	return nil
}

func unsupportedTool(param, typ string) *apiError {
	e := badRequest(param, "Tools of type '"+typ+"' are not available here: the upstream can't run them.")
	e.Code = "unsupported_tool"
	return e
}

// function reads a function, flat or in chat's form.
func (t *toolReader) function(path string, raw []byte, tool *responsesTool, namespace string) error {
	if isObject(tool.Function) {
		name := text(member(tool.Function, "name"))
		return t.append(path, emulatedTool{name, toolFunction, name, ""}, chatTool{Raw: bytes.Clone(raw)})
	}
	return t.emulate(path, emulatedTool{"", toolFunction, tool.Name, namespace}, chatFunction{
		Description: tool.Description, Parameters: orDefault(tool.Parameters, emptyParameters), Strict: orAbsent(tool.Strict),
	})
}

// custom reads a tool that takes free text, which becomes a function with one
// string (dialects D-65b).
func (t *toolReader) custom(path string, tool *responsesTool, namespace string) error {
	lines := []string{tool.Description, `Put the raw tool input, unescaped, into "input".`}
	if tool.Description == "" {
		lines = lines[1:]
	}
	if tool.Format.Type == "grammar" {
		lines = append(lines, "Grammar ("+tool.Format.Syntax+"):", tool.Format.Definition)
	}
	return t.emulate(path, emulatedTool{"", toolCustom, tool.Name, namespace}, chatFunction{
		Description: strings.Join(lines, "\n"), Parameters: json.RawMessage(customParameters),
	})
}

// namespace reads tools that share a name space.
func (t *toolReader) namespace(path string, tool *responsesTool) error {
	if tool.Name == "" {
		return missing(path + ".name")
	}
	for i, raw := range tool.Tools {
		if err := t.add(path+".tools["+strconv.Itoa(i)+"]", raw, tool.Name); err != nil {
			return err
		}
	}
	return nil
}

// flatToolName is a tool's name with that of its namespace, "" for none.
func flatToolName(namespace, name string) string {
	switch {
	case namespace == "":
		return name
	case strings.HasSuffix(namespace, "__"):
		return namespace + name
	}
	return namespace + "__" + name
}

// emulate appends a function for a tool.
func (t *toolReader) emulate(path string, e emulatedTool, f chatFunction) error {
	if e.name == "" {
		return missing(path + ".name")
	}
	e.upstream = t.x.safeToolName(flatToolName(e.namespace, e.name))
	f.Name = e.upstream
	return t.append(path, e, chatTool{Type: "function", Function: f})
}

func (t *toolReader) append(path string, e emulatedTool, tool chatTool) error {
	if e.upstream == "" {
		return missing(path + ".name")
	}
	if i := slices.IndexFunc(t.emulated, func(o emulatedTool) bool { return o.upstream == e.upstream }); i >= 0 {
		return badRequest(path, "The tools "+t.emulated[i].String()+" and "+e.String()+" have the same name '"+e.upstream+"'; rename one of them.")
	}
	t.emulated = append(t.emulated, e)
	t.tools = append(t.tools, tool)
	return nil
}

// String names the tool as the client knows it.
func (e emulatedTool) String() string {
	if e.namespace != "" {
		return "'" + e.namespace + "." + e.name + "'"
	}
	return "'" + e.name + "'"
}

// addOnce reads a tool that may have been announced before.
func (t *toolReader) addOnce(path string, raw []byte) error {
	again := toolReader{x: t.x}
	if err := again.add(path, raw, ""); err != nil {
		return err
	}
	for i, e := range again.emulated {
		if !t.has(e.upstream) {
			t.emulated, t.tools = append(t.emulated, e), append(t.tools, again.tools[i])
		}
	}
	return nil
}

func (t *toolReader) has(upstream string) bool {
	return slices.ContainsFunc(t.emulated, func(e emulatedTool) bool { return e.upstream == upstream })
}

// toolChoice is a tool_choice that is no word.
type toolChoice struct {
	Type      string            `json:"type"`
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Mode      string            `json:"mode"`
	Tools     []json.RawMessage `json:"tools"`
	Function  *struct {
		Name string `json:"name"`
	} `json:"function"` // of a choice in chat's form
}

// choose fills the request's tools and tool_choice (dialects D-66 to D-70).
func (t *toolReader) choose(choice json.RawMessage, q *chatRequest) error {
	q.Tools = t.tools
	if isNull(choice) {
		return nil
	}
	if isString(choice) {
		return t.mode("tool_choice", text(choice), q)
	}
	if !isObject(choice) {
		return wrongType("tool_choice", "a string or an object", choice)
	}
	var c toolChoice
	if err := json.Unmarshal(choice, &c); err != nil {
		return typeErrorAt("tool_choice", err)
	}
	if c.Function != nil && c.Name == "" {
		c.Name = c.Function.Name
	}
	if c.Type == "allowed_tools" {
		return t.allow(&c, q)
	}
	e, ok := t.find(&c)
	switch {
	case ok:
		q.ToolChoice = functionChoice(e.upstream)
		return nil
	case c.Type == "function", c.Type == "custom":
		return badRequest("tool_choice", "Tool choice '"+c.Name+"' not found in 'tools' parameter.")
	}
	return unsupportedTool("tool_choice", c.Type)
}

// mode takes one of the words.
func (t *toolReader) mode(param, word string, q *chatRequest) error {
	switch word {
	case "auto", "":
	case "none":
		if len(q.Tools) > 0 {
			q.ToolChoice = json.RawMessage(`"none"`)
		}
	case "required":
		if len(q.Tools) == 0 {
			if len(t.dropped) > 0 {
				return unsupportedTool(param, t.dropped[0])
			}
			return invalid(param, "'required' needs tools")
		}
		q.ToolChoice = json.RawMessage(`"required"`)
	default:
		return invalidValue(param, word, "'none', 'auto' and 'required'")
	}
	return nil
}

// find is the tool that a choice names.
func (t *toolReader) find(c *toolChoice) (emulatedTool, bool) {
	for _, e := range t.emulated {
		if e.is(c) {
			return e, true
		}
	}
	return emulatedTool{}, false
}

// is says whether a choice means the tool: by its type, by its name alone or
// with the namespace, or by the name of its namespace for all in it.
func (e emulatedTool) is(c *toolChoice) bool {
	switch c.Type {
	case "function", "custom":
		if (e.kind == toolCustom) != (c.Type == "custom") || e.kind > toolCustom {
			return false
		}
		return e.name == c.Name && (c.Namespace == "" || c.Namespace == e.namespace) || flatToolName(e.namespace, e.name) == c.Name
	case "namespace":
		return e.namespace != "" && e.namespace == c.Name
	}
	return e.kind > toolCustom && e.name == c.Type
}

// allow leaves only the allowed tools in the request. Calls of any other tool
// are kept from the client, should the model make one (dialects D-68).
func (t *toolReader) allow(c *toolChoice, q *chatRequest) error {
	var allowed []toolChoice
	for i, raw := range c.Tools {
		var a toolChoice
		if err := json.Unmarshal(raw, &a); err != nil {
			return typeErrorAt("tool_choice.tools["+strconv.Itoa(i)+"]", err)
		}
		if a.Function != nil && a.Name == "" {
			a.Name = a.Function.Name
		}
		allowed = append(allowed, a)
	}
	q.Tools = nil
	r := t.x.responses
	r.restricted = true
	for i, e := range t.emulated {
		if slices.ContainsFunc(allowed, func(a toolChoice) bool { return e.is(&a) }) {
			q.Tools = append(q.Tools, t.tools[i])
			r.allowed = append(r.allowed, e.upstream)
		}
	}
	return t.mode("tool_choice.mode", c.Mode, q)
}

// repeatTools sends the tools of the latest turn again, not to be called, for
// upstreams that refuse calls in the history without them.
func repeatTools(x *exchange, q *chatRequest) error {
	if !slices.ContainsFunc(q.Messages, func(m chatMessage) bool { return m.Role == "tool" || len(m.ToolCalls) > 0 }) {
		return nil
	}
	for _, r := range slices.Backward(x.responses.Chain) {
		t := toolReader{x: x}
		for raw := range elements(member(r.Object, "tools")) {
			if err := t.add("tools", raw, ""); err != nil {
				return err
			}
		}
		if len(t.tools) > 0 {
			q.Tools = append(q.Tools, t.tools...)
			q.ToolChoice = json.RawMessage(`"none"`)
			x.responses.tools = t.emulated
			return nil
		}
	}
	return nil
}

// echoTools are the client's tools as the answer repeats them: each function
// with all the members that the schema of a response demands.
func echoTools(tools []json.RawMessage) []json.RawMessage {
	list := make([]json.RawMessage, 0, len(tools))
	for _, raw := range tools {
		tool := compact(raw)
		if text(member(tool, "type")) == "function" && member(tool, "function") == nil {
			for _, key := range []string{"description", "parameters", "strict"} {
				if member(tool, key) == nil {
					tool = slices.Concat(tool[:len(tool)-1], []byte(`,"`+key+`":null}`))
				}
			}
		}
		list = append(list, tool)
	}
	return list
}

// toolOf is the tool that an upstream's call means; a name that the client did
// not send is a function of that name.
func (r *responsesRequest) toolOf(x *exchange, name string) emulatedTool {
	for _, e := range r.tools {
		if e.upstream == name {
			return e
		}
	}
	return emulatedTool{name, toolFunction, x.clientToolName(name), ""}
}

// mayCall says whether the client allows calls of a tool.
func (r *responsesRequest) mayCall(upstream string) bool {
	return !r.restricted || slices.Contains(r.allowed, upstream)
}

// customInput is the free text that a call of a custom tool holds (dialects
// D-71).
func customInput(args string) string {
	raw := []byte(strings.TrimSpace(args))
	if checkJSON(raw) != nil {
		return args
	}
	if isString(raw) {
		return text(raw)
	}
	if v := member(raw, "input"); isString(v) {
		return text(v)
	}
	var found []byte
	n := 0
	for _, v := range members(raw) {
		if isString(v) {
			found = v
			n++
		}
	}
	if n == 1 {
		return text(found)
	}
	return args
}

// localShellAction is the action of a local shell's call; nil when the arguments are
// none.
func localShellAction(args string) []byte {
	raw := argumentsObject(args)
	command := member(raw, "command")
	switch {
	case isString(command): // models that know shells better than schemas
		command = slices.Concat([]byte(`["bash","-lc",`), command, []byte("]"))
	case !isArray(command):
		return nil
	}
	env := member(raw, "env")
	if !isObject(env) {
		env = []byte("{}")
	}
	out := slices.Concat([]byte(`{"type":"exec","command":`), command, []byte(`,"env":`), env)
	for _, key := range []string{"timeout_ms", "user", "working_directory"} {
		if v := member(raw, key); !isNull(v) {
			out = append(append(out, `,"`+key+`":`...), v...)
		}
	}
	return append(out, '}')
}

// shellAction is the action of a shell's call; nil when the arguments are none.
func shellAction(args string) []byte {
	raw := argumentsObject(args)
	commands := member(raw, "commands")
	switch {
	case isString(commands):
		commands = slices.Concat([]byte("["), commands, []byte("]"))
	case !isArray(commands):
		return nil
	}
	out := append([]byte(`{"commands":`), commands...)
	for _, key := range []string{"timeout_ms", "max_output_length"} {
		out = append(append(out, `,"`+key+`":`...), orDefault(member(raw, key), "null")...)
	}
	return append(out, '}')
}

// patchOperation is the operation of an apply_patch call; nil when the arguments
// are none.
func patchOperation(args string) []byte {
	raw := argumentsObject(args)
	op := member(raw, "operation")
	if !isObject(op) {
		op = raw
	}
	if !isString(member(op, "type")) || !isString(member(op, "path")) {
		return nil
	}
	return op
}
