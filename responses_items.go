package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// An inputReader turns the items of a conversation into chat messages. The items
// are read first, one by one, into entries; the messages are built of all of
// them together, since a call must be followed by its result at once, wherever
// the client has put it (dialects D.3).
type inputReader struct {
	x       *exchange
	keep    bool // the request's own items are to be stored
	entries []entry
	tools   []json.RawMessage // that stand among the items
	own     []json.RawMessage // the request's own items, with ids

	loose  []chatPart        // parts without a message around them, so far
	gemini []json.RawMessage // Gemini turns, so far
}

// An entry is one item as far as the conversation is concerned.
type entry struct {
	kind   entryKind
	role   string        // of entryInput
	parts  []chatPart    // of entryInput; media of entryResult
	text   string        // of entryAnswer and entryResult
	call   chatToolCall  // of entryCall
	itemID string        // of entryCall
	callID string        // of entryResult
	think  reasoning     // of entryThought
	turns  []chatMessage // of entryTurns
}

type entryKind int

const (
	entryInput   entryKind = iota // what a user, the system or the developer says
	entryAnswer                   // text of the assistant's
	entryCall                     // a call that the assistant has made
	entryThought                  // the assistant's reasoning
	entryResult                   // what a call has given
	entryTurns                    // messages that are finished
)

// responsesItem is an input item of any type.
type responsesItem struct {
	Type      string          `json:"type"`
	ID        string          `json:"id"`
	Role      string          `json:"role"`
	Content   json.RawMessage `json:"content"`
	Parts     json.RawMessage `json:"parts"` // of a Gemini turn
	CallID    string          `json:"call_id"`
	Name      string          `json:"name"`
	Namespace string          `json:"namespace"`
	Arguments json.RawMessage `json:"arguments"`
	Input     string          `json:"input"`
	Output    json.RawMessage `json:"output"`
	Status    string          `json:"status"`
	Action    json.RawMessage `json:"action"`
	Operation json.RawMessage `json:"operation"`
	Summary   json.RawMessage `json:"summary"`
	Encrypted string          `json:"encrypted_content"`
	Execution string          `json:"execution"`
	Tools     json.RawMessage `json:"tools"`
	Result    json.RawMessage `json:"result"` // of a function_result
}

// stored reads the items of an earlier response: its input, then its output.
func (in *inputReader) stored(r storedResponse) error {
	list := slices.Concat(r.Input, r.output())
	for _, raw := range list {
		if err := in.item("previous_response_id", raw); err != nil {
			return err
		}
	}
	return in.flush()
}

// input reads the request's own input.
func (in *inputReader) input(v json.RawMessage) error {
	switch {
	case isNull(v):
		if len(in.x.responses.Chain) > 0 {
			return nil
		}
		e := badRequest("input", "Missing required parameter: 'input'.")
		e.Code = "missing_required_parameter"
		return e
	case isString(v):
		in.entries = append(in.entries, entry{kind: entryInput, role: "user", parts: []chatPart{partText(text(v))}})
		in.keepItem([]byte(`{"role":"user"}`), &responsesItem{Role: "user", Content: v})
		return nil
	case isObject(v) && in.x.dialect == &openai: // Gemini takes one part, or turn, without its array
		if err := in.ownItem("input", v); err != nil {
			return err
		}
		return in.flush()
	case !isArray(v):
		return wrongType("input", "a string or an array of items", v)
	}
	i := 0
	for raw := range elements(v) {
		if !isObject(raw) {
			return wrongType("input", "a string or an array of items", raw)
		}
		if err := in.ownItem("input["+strconv.Itoa(i)+"]", raw); err != nil {
			return err
		}
		i++
	}
	return in.flush()
}

// ownItem reads an item of the request itself; a reference counts as what it
// names.
func (in *inputReader) ownItem(path string, raw []byte) error {
	var item responsesItem
	if err := json.Unmarshal(raw, &item); err != nil {
		return typeErrorAt(path, err)
	}
	if item.isReference(raw) {
		found, ok := in.find(item.ID)
		if !ok {
			return badRequest("input", "Item with id '"+item.ID+"' not found.")
		}
		raw, item = found, responsesItem{}
		if err := json.Unmarshal(raw, &item); err != nil {
			return typeErrorAt(path, err)
		}
	}
	in.keepItem(raw, &item)
	return in.read(path, raw, &item)
}

// isReference says whether an item only names a stored one.
func (it *responsesItem) isReference(raw []byte) bool {
	if it.Type != "" || it.ID == "" {
		return it.Type == "item_reference"
	}
	for k, v := range members(raw) {
		if string(k) != "id" && !isNull(v) {
			return false
		}
	}
	return true
}

// find looks an item up by its id: among those that were loaded for it, and in
// the chain.
func (in *inputReader) find(id string) (json.RawMessage, bool) {
	if raw, ok := in.x.responses.Items[id]; ok {
		return raw, true
	}
	for _, r := range in.x.responses.Chain {
		if raw := r.item(id); raw != nil {
			return raw, true
		}
	}
	return nil, false
}

// item reads an item that was stored.
func (in *inputReader) item(path string, raw []byte) error {
	var item responsesItem
	if err := json.Unmarshal(raw, &item); err != nil {
		return typeErrorAt(path, err)
	}
	return in.read(path, raw, &item)
}

// read takes one item, which may go on with a run of loose parts or Gemini turns.
func (in *inputReader) read(path string, raw []byte, it *responsesItem) error {
	switch {
	case it.Role == "" && isPartType(it.Type):
		part, err := in.part(path, raw)
		if err != nil {
			return err
		}
		in.loose = append(in.loose, part...)
		return nil
	case isArray(it.Parts) && (it.Type == "" || it.Type == "message"):
		in.gemini = append(in.gemini, bytes.Clone(raw))
		return nil
	}
	if err := in.flush(); err != nil {
		return err
	}
	e, err := in.entry(path, it)
	if err != nil {
		return err
	}
	if e != nil {
		in.entries = append(in.entries, *e)
	}
	return nil
}

// flush ends a run of loose parts or of Gemini turns.
func (in *inputReader) flush() error {
	if len(in.loose) > 0 {
		in.entries = append(in.entries, entry{kind: entryInput, role: "user", parts: in.loose})
		in.loose = nil
	}
	if len(in.gemini) > 0 {
		turns, err := geminiTurns(in.x, in.gemini)
		if err != nil {
			return err
		}
		in.entries = append(in.entries, entry{kind: entryTurns, turns: turns})
		in.gemini = nil
	}
	return nil
}

// entry reads an item; nil for one that leaves nothing behind.
func (in *inputReader) entry(path string, it *responsesItem) (*entry, error) {
	switch it.Type {
	case "", "message":
		return in.message(path, it.Role, it)
	case "user_input": // the steps of Gemini's Interactions API
		return in.message(path, "user", it)
	case "model_output":
		return in.message(path, "assistant", it)
	case "thought": // signed by Google, and of no use to anybody else
		return nil, nil
	case "reasoning":
		return in.thought(it), nil
	case "item_reference":
		return nil, badRequest("input", "Item with id '"+it.ID+"' not found.")
	case "additional_tools":
		return nil, in.addTools(path, it)
	case "tool_search_call", "tool_search_output":
		return in.toolSearch(path, it)
	}
	if e, err := in.callEntry(path, it); e != nil || err != nil {
		return e, err
	}
	if e, err := in.resultEntry(path, it); e != nil || err != nil {
		return e, err
	}
	if isHostedItem(it.Type) {
		in.x.drop("input." + printable(it.Type))
		return nil, nil
	}
	return nil, invalidValue(path+".type", it.Type, "'message', 'reasoning', 'function_call', 'function_call_output', 'custom_tool_call', 'custom_tool_call_output', 'item_reference' and the calls and outputs of the local shell, shell and apply_patch tools")
}

// isHostedItem says whether an item tells of a tool that OpenAI has run, or is of
// a vendor's own type; such history is left out with a note.
func isHostedItem(typ string) bool {
	switch typ {
	case "web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "compaction", "compaction_trigger", "program", "program_output":
		return true
	}
	return strings.Contains(typ, ":") || strings.HasPrefix(typ, "mcp_") || strings.HasPrefix(typ, "computer_call") || strings.HasPrefix(typ, "tool_search_")
}

// message reads what somebody says.
func (in *inputReader) message(path, role string, it *responsesItem) (*entry, error) {
	switch role {
	case "assistant", "model":
		said, err := in.said(path+".content", it.Content)
		return &entry{kind: entryAnswer, text: said}, err
	case "user", "system", "developer":
		parts, err := in.parts(path+".content", it.Content)
		return &entry{kind: entryInput, role: role, parts: parts}, err
	case "":
		e := badRequest(path+".type", "Missing required parameter: '"+path+".type'.")
		e.Code = "missing_required_parameter"
		return nil, e
	}
	return nil, invalidValue(path+".role", role, "'user', 'assistant', 'system' and 'developer'")
}

// said is an assistant's text; what in it is no text is left out with a note.
func (in *inputReader) said(path string, v json.RawMessage) (string, error) {
	if isNull(v) || isString(v) {
		return text(v), nil
	}
	if !isArray(v) {
		return "", wrongType(path, "a string or an array of parts", v)
	}
	var b strings.Builder
	i := 0
	for raw := range elements(v) {
		var p responsesPart
		if err := json.Unmarshal(raw, &p); err != nil {
			return "", typeErrorAt(path+"["+strconv.Itoa(i)+"]", err)
		}
		switch p.Type {
		case "output_text", "input_text", "text", "":
			b.WriteString(p.Text)
		case "refusal":
			b.WriteString(p.Refusal)
		default:
			in.x.drop("input.content." + printable(p.Type))
		}
		i++
	}
	return b.String(), nil
}

// parts reads a message's content.
func (in *inputReader) parts(path string, v json.RawMessage) ([]chatPart, error) {
	if isNull(v) || isString(v) {
		return []chatPart{partText(text(v))}, nil
	}
	if !isArray(v) {
		return nil, wrongType(path, "a string or an array of parts", v)
	}
	var list []chatPart
	i := 0
	for raw := range elements(v) {
		part, err := in.part(path+"["+strconv.Itoa(i)+"]", raw)
		if err != nil {
			return nil, err
		}
		list = append(list, part...)
		i++
	}
	return list, nil
}

// responsesPart is a content part of any type.
type responsesPart struct {
	Type       string          `json:"type"`
	Text       string          `json:"text"`
	Refusal    string          `json:"refusal"`
	ImageURL   json.RawMessage `json:"image_url"`
	Detail     string          `json:"detail"`
	FileID     string          `json:"file_id"`
	FileURL    string          `json:"file_url"`
	FileData   string          `json:"file_data"`
	Filename   string          `json:"filename"`
	InputAudio json.RawMessage `json:"input_audio"`
	File       json.RawMessage `json:"file"`
}

// isPartType says whether a type is one of a content part, and of no item.
func isPartType(typ string) bool {
	switch typ {
	case "input_text", "output_text", "text", "input_image", "image_url", "input_file", "file", "input_audio", "refusal",
		"image", "audio", "document", "video":
		return true
	}
	return false
}

// part reads one part; a part that says nothing gives none.
func (in *inputReader) part(path string, raw []byte) ([]chatPart, error) {
	if isString(raw) {
		return []chatPart{partText(text(raw))}, nil
	}
	var p responsesPart
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, typeErrorAt(path, err)
	}
	var part chatPart
	var err error
	switch p.Type {
	case "input_text", "output_text", "text":
		part = partText(p.Text)
	case "refusal":
		part = partText(p.Refusal)
	case "input_image", "image_url":
		part, err = in.image(path, &p)
	case "input_file":
		part, err = in.file(path, &p)
	case "input_audio":
		if !isObject(p.InputAudio) {
			return nil, invalid(path+".input_audio", "must be an object with data and format")
		}
		part = chatPart{Type: p.Type, Raw: slices.Concat([]byte(`{"type":"input_audio","input_audio":`), p.InputAudio, []byte("}"))}
	case "file":
		if !isObject(p.File) {
			return nil, invalid(path+".file", "must be an object with file_data or file_id")
		}
		part = chatPart{Type: p.Type, Raw: slices.Concat([]byte(`{"type":"file","file":`), p.File, []byte("}"))}
	case "image", "audio", "document", "video":
		part, err = stepFile(raw, path)
	default:
		return nil, invalidValue(path+".type", p.Type, "'input_text', 'input_image', 'input_file' and 'input_audio'")
	}
	return []chatPart{part}, err
}

// stepFile reads a file in a step of Gemini's Interactions.
func stepFile(raw []byte, path string) (chatPart, error) {
	if isNull(member(raw, "data")) {
		return linkedFile(raw, path)
	}
	return inlineFile(raw, path)
}

// image reads an input_image, or chat's own image_url.
func (in *inputReader) image(path string, p *responsesPart) (chatPart, error) {
	address, detail := p.ImageURL, p.Detail
	if isObject(address) {
		detail, address = text(member(address, "detail")), member(address, "url")
	}
	switch {
	case isString(address):
		switch detail {
		case "auto":
			detail = ""
		case "original":
			detail = "high"
		}
		return partImage(text(address), detail), nil
	case p.FileID != "":
		return in.fileByID(path, p)
	case isNull(address):
		return chatPart{}, invalid(path+".image_url", "must be an address or a data URL")
	}
	return chatPart{}, wrongType(path+".image_url", "a string", address)
}

// fileByID is a file that only an upstream with a file store can have.
func (in *inputReader) fileByID(path string, p *responsesPart) (chatPart, error) {
	if in.x.quirk("files") != "on" {
		return chatPart{}, invalid(path+".file_id", "this gateway stores no files; send the content itself, as image_url or file_data")
	}
	return chatPart{Type: "file", File: &chatFile{Filename: p.Filename, FileID: p.FileID}}, nil
}

// file reads an input_file.
func (in *inputReader) file(path string, p *responsesPart) (chatPart, error) {
	switch {
	case p.FileData != "":
		if content, ok := textOfDataURL(p.FileData); ok {
			return partText(content), nil
		}
		if !strings.HasPrefix(p.FileData, "data:") {
			p.FileData = "data:application/pdf;base64," + p.FileData
		}
		return partFile(p.Filename, p.FileData), nil
	case p.FileID != "":
		return in.fileByID(path, p)
	case p.FileURL == "":
		return chatPart{}, invalid(path+".file_data", "must be a data URL or base64")
	case in.x.quirk("files") != "on":
		return chatPart{}, invalid(path+".file_url", "the upstream fetches no files; send the content itself as file_data")
	}
	return partFile(p.Filename, p.FileURL), nil
}

// textOfDataURL is the content of a data URL that holds text.
func textOfDataURL(s string) (string, bool) {
	rest, ok := strings.CutPrefix(s, "data:text/")
	if !ok {
		return "", false
	}
	head, data, ok := strings.Cut(rest, ",")
	if !ok {
		return "", false
	}
	if strings.HasSuffix(head, ";base64") {
		raw, err := base64.StdEncoding.DecodeString(data)
		return strings.ToValidUTF8(string(raw), "\ufffd"), err == nil
	}
	plain, err := url.PathUnescape(data)
	return strings.ToValidUTF8(plain, "\ufffd"), err == nil
}

// thought reads a reasoning item, which can be sent back only if the gateway
// knows where it came from (dialects E-24).
func (in *inputReader) thought(it *responsesItem) *entry {
	var shown strings.Builder
	for p := range elements(it.Summary) {
		shown.WriteString(text(member(p, "text")))
	}
	stamp := it.Encrypted
	if stamp == "" && it.ID != "" {
		if raw, ok := in.find(it.ID); ok {
			stamp = text(member(raw, "encrypted_content"))
		}
	}
	think, ok := unstamp(stamp, shown.String())
	if !ok {
		return nil
	}
	return &entry{kind: entryThought, think: think}
}

// addTools reads tools that are announced in the middle of the conversation.
func (in *inputReader) addTools(path string, it *responsesItem) error {
	if !isNull(it.Tools) && !isArray(it.Tools) {
		return wrongType(path+".tools", "an array of tools", it.Tools)
	}
	for raw := range elements(it.Tools) {
		in.tools = append(in.tools, bytes.Clone(raw))
	}
	return nil
}

// toolSearch reads a search for tools. One that the client has run is a call
// like any other, and its result brings the tools; one that OpenAI has run is
// history of a hosted tool.
func (in *inputReader) toolSearch(path string, it *responsesItem) (*entry, error) {
	if it.Execution != "client" || it.CallID == "" {
		in.x.drop("input." + printable(it.Type))
		return nil, nil
	}
	if it.Type == "tool_search_call" {
		return in.call(it, "tool_search", argumentsText(it.Arguments)), nil
	}
	var names []string
	for t := range elements(it.Tools) {
		names = append(names, text(member(t, "name")))
	}
	result := "Found no tools."
	if len(names) > 0 {
		result = "Found tools: " + strings.Join(names, ", ")
	}
	return &entry{kind: entryResult, callID: it.CallID, text: result}, in.addTools(path, it)
}

// callEntry reads a call of any kind; nil for other items.
func (in *inputReader) callEntry(path string, it *responsesItem) (*entry, error) {
	var e *entry
	name := ""
	switch it.Type {
	case "function_call":
		name = path + ".name"
		e = in.call(it, flatToolName(it.Namespace, it.Name), argumentsText(it.Arguments))
	case "custom_tool_call":
		name = path + ".name"
		e = in.call(it, flatToolName(it.Namespace, it.Name), string(append(appendQuoted([]byte(`{"input":`), it.Input), '}')))
	case "local_shell_call":
		e = in.call(it, "local_shell", string(withoutType(it.Action)))
	case "shell_call":
		e = in.call(it, "shell", string(objectOrEmpty(it.Action)))
	case "apply_patch_call":
		e = in.call(it, "apply_patch", string(slices.Concat([]byte(`{"operation":`), objectOrEmpty(it.Operation), []byte("}"))))
	default:
		return nil, nil
	}
	if e.call.ID == "" {
		return nil, missing(path + ".call_id")
	}
	if name != "" && it.Name == "" {
		return nil, missing(name)
	}
	return e, nil
}

func missing(param string) *apiError {
	e := badRequest(param, "Missing required parameter: '"+param+"'.")
	e.Code = "missing_required_parameter"
	return e
}

func (in *inputReader) call(it *responsesItem, name, arguments string) *entry {
	id := it.CallID
	if id == "" {
		id = it.ID
	}
	return &entry{kind: entryCall, call: functionCall(id, in.x.safeToolName(name), arguments), itemID: it.ID}
}

// argumentsText is a call's arguments as text, however they were sent.
func argumentsText(v json.RawMessage) string {
	switch {
	case isString(v):
		if s := text(v); strings.TrimSpace(s) != "" {
			return s
		}
	case !isNull(v):
		return string(compact(v))
	}
	return "{}"
}

func objectOrEmpty(v json.RawMessage) json.RawMessage {
	if !isObject(v) {
		return json.RawMessage("{}")
	}
	return compact(v)
}

// withoutType is an object without its member type.
func withoutType(v json.RawMessage) json.RawMessage {
	out := []byte{'{'}
	for k, value := range members(compact(v)) {
		if string(k) != "type" {
			out = appendMember(out, k, value)
		}
	}
	return closeObject(out)
}

// resultEntry reads what a call has given; nil for other items.
func (in *inputReader) resultEntry(path string, it *responsesItem) (*entry, error) {
	e := &entry{kind: entryResult, callID: it.CallID}
	var err error
	switch it.Type {
	case "function_call_output", "custom_tool_call_output":
		e.text, e.parts, err = in.output(path+".output", it.Output)
	case "local_shell_call_output":
		if e.callID == "" {
			e.callID = in.callOfItem(it.ID)
		}
		e.text, e.parts, err = in.output(path+".output", it.Output)
	case "function_result": // a step of Gemini's Interactions
		if isObject(it.Result) {
			e.text = geminiResult(compact(it.Result))
		} else {
			e.text, e.parts, err = in.output(path+".result", it.Result)
		}
	case "shell_call_output":
		e.text, err = shellOutput(path+".output", it.Output)
	case "apply_patch_call_output":
		if e.text, e.parts, err = in.output(path+".output", it.Output); e.text == "" {
			e.text = it.Status
		}
	default:
		return nil, nil
	}
	if err == nil && e.callID == "" {
		return nil, missing(path + ".call_id")
	}
	return e, err
}

// callOfItem is the id of the call that a local shell's output belongs to: the
// output's own id is the call's, or that of the call's item.
func (in *inputReader) callOfItem(id string) string {
	for _, e := range slices.Backward(in.entries) {
		if e.kind == entryCall && e.call.ID == id {
			return id
		}
	}
	for _, e := range slices.Backward(in.entries) {
		if e.kind == entryCall && id != "" && e.itemID == id {
			return e.call.ID
		}
	}
	return id
}

// output reads a call's output: its text, and the media that a tool message has
// no room for.
func (in *inputReader) output(path string, v json.RawMessage) (string, []chatPart, error) {
	if isNull(v) || isString(v) {
		return text(v), nil, nil
	}
	if !isArray(v) {
		return "", nil, wrongType(path, "a string or an array of parts", v)
	}
	parts, err := in.parts(path, v)
	if err != nil {
		return "", nil, err
	}
	var texts, names []string
	var media []chatPart
	for _, p := range parts {
		switch {
		case p.Text == nil:
			media = append(media, p)
			names = append(names, mediaName(p))
		case *p.Text != "":
			texts = append(texts, *p.Text)
		}
	}
	if len(texts) == 0 {
		texts = names
	}
	return strings.Join(texts, "\n\n"), media, nil
}

// mediaName stands in a tool message for what was moved out of it.
func mediaName(p chatPart) string {
	switch p.Type {
	case "image_url":
		return "[image]"
	case "input_audio":
		return "[audio]"
	}
	return "[document]"
}

// shellOutput is what the commands of a shell call have printed.
func shellOutput(path string, v json.RawMessage) (string, error) {
	if isNull(v) || isString(v) {
		return text(v), nil
	}
	if !isArray(v) {
		return "", wrongType(path, "an array of command outputs", v)
	}
	var runs []string
	for raw := range elements(v) {
		var run struct {
			Stdout  string `json:"stdout"`
			Stderr  string `json:"stderr"`
			Outcome struct {
				Type     string `json:"type"`
				ExitCode int    `json:"exit_code"`
			} `json:"outcome"`
		}
		if err := json.Unmarshal(raw, &run); err != nil {
			return "", typeErrorAt(path+"["+strconv.Itoa(len(runs))+"]", err)
		}
		lines := []string{"exit " + strconv.Itoa(run.Outcome.ExitCode)}
		if run.Outcome.Type == "timeout" {
			lines[0] = "timeout"
		}
		for _, s := range []string{run.Stdout, run.Stderr} {
			if s != "" {
				lines = append(lines, strings.TrimSuffix(s, "\n"))
			}
		}
		runs = append(runs, strings.Join(lines, "\n"))
	}
	return strings.Join(runs, "\n\n"), nil
}

// keepItem takes down an item of the request as it will be stored: with an id,
// and in the form in which it is listed (dialects D-146).
func (in *inputReader) keepItem(raw []byte, it *responsesItem) {
	if !in.keep {
		return
	}
	message := (it.Type == "" || it.Type == "message") && it.Role != "" && it.Parts == nil
	head := []byte{'{'}
	if message && it.Type == "" {
		head = append(head, `"type":"message",`...)
	}
	if it.ID == "" {
		head = appendQuoted(append(head, `"id":`...), in.x.responses.ids.next(itemPrefix(it)))
		head = append(head, ',')
	}
	if message && it.Status == "" {
		head = append(head, `"status":"completed",`...)
	}
	for k, v := range members(raw) {
		switch key := string(k); {
		case isNull(v), message && key == "content":
			continue
		case key == "id" && it.ID == "", key == "type" && it.Type == "", message && key == "status" && it.Status == "":
			continue
		}
		head = appendMember(head, k, compact(v))
	}
	if message {
		head = append(append(append(head, `"content":`...), listedContent(it)...), ',')
	}
	in.own = append(in.own, closeObject(head))
}

// itemPrefix is how the id of an input item begins.
func itemPrefix(it *responsesItem) string {
	switch it.Type {
	case "", "message":
		return "msg_"
	case "reasoning":
		return "rs_"
	case "custom_tool_call", "custom_tool_call_output":
		return "ctc_"
	}
	return "fc_"
}

// listedContent is a message's content as a list of parts.
func listedContent(it *responsesItem) []byte {
	switch {
	case isNull(it.Content):
		return []byte("[]")
	case !isString(it.Content):
		return compact(it.Content)
	case it.Role == "assistant" || it.Role == "model":
		return slices.Concat([]byte(`[{"type":"output_text","text":`), it.Content, []byte(`,"annotations":[]}]`))
	}
	return slices.Concat([]byte(`[{"type":"input_text","text":`), it.Content, []byte(`}]`))
}
