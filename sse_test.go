package main

import (
	"fmt"
	"strings"
	"testing"
)

// eventsOf feeds a stream to a parser in the given pieces.
func eventsOf(pieces ...string) []string {
	var p eventParser
	var got []string
	on := func(e event) { got = append(got, fmt.Sprintf("%s|%s", e.name, e.data)) }
	for _, piece := range pieces {
		b := []byte(piece)
		p.feed(b, on)
		clear(b) // the caller's buffer is the caller's again
	}
	p.end(on)
	return got
}

func TestEventParser(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"one", "data: a\n\n", []string{"|a"}},
		{"two", "data: a\n\ndata: b\n\n", []string{"|a", "|b"}},
		{"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", []string{"|a", "|b"}},
		{"CR", "data: a\r\rdata: b\r\r", []string{"|a", "|b"}},
		{"mixed ends", "data: a\r\n\ndata: b\n\r\ndata: c\r\n\r", []string{"|a", "|b", "|c"}},
		{"no space after the colon", "data:a\n\n", []string{"|a"}},
		{"only one space goes", "data:  a\n\n", []string{"| a"}},
		{"several data lines", "data: a\ndata: b\ndata:\n\n", []string{"|a\nb\n"}},
		{"a name", "event: error\ndata: a\n\ndata: b\n\n", []string{"error|a", "|b"}},
		{"comments and other fields", ": hi\nid: 1\nretry: 5\nfoo: x\ndata: a\n: there\n\n", []string{"|a"}},
		{"blank events", "\n\n: c\n\nevent: x\n\n", nil},
		{"a line that is only a name", "data\n\n", []string{"|"}},
		{"data that is empty", "data:\n\n", []string{"|"}},
		{"no blank line at the end", "data: a\n", []string{"|a"}},
		{"no line end at the end", "data: a\ndata: b", []string{"|a\nb"}},
		{"a byte order mark", "\ufeffdata: a\n\n", []string{"|a"}},
		{"a byte order mark later on", "data: a\n\n\ufeffdata: b\n\n", []string{"|a"}},
		{"a byte order mark and no line end", "\ufeffdata: a", []string{"|a"}},
		{"bare JSON lines", "{\"a\":1}\n{\"a\":2}\n", []string{`|{"a":1}`, `|{"a":2}`}},
		{"a multi-byte character", "data: 日本😀\n\n", []string{"|日本😀"}},
		{"nothing", "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := eventsOf(tt.in); strings.Join(got, "\x00") != strings.Join(tt.want, "\x00") {
				t.Errorf("%q has the events %q, want %q", tt.in, got, tt.want)
			}
			if got := eventsOf(strings.Split(tt.in, "")...); strings.Join(got, "\x00") != strings.Join(tt.want, "\x00") {
				t.Errorf("%q in single characters has the events %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestEventParserDone(t *testing.T) {
	for in, want := range map[string]bool{
		"data: [DONE]\n":            true,
		"data:[DONE]\r":             true,
		"data:  [DONE] \n":          true,
		"data: [DONE]":              false,
		"data: x\ndata: [DONE]\n":   false,
		"data: \"[DONE]\"\n":        false,
		"data: [DONE]\n\n":          false, // dispatched by then
		"data: a\n\ndata: [DONE]\n": true,
	} {
		var p eventParser
		for i := range len(in) {
			p.feed([]byte(in[i:i+1]), func(event) {})
		}
		if got := p.atDone(); got != want {
			t.Errorf("after %q the end marker is in: %v, want %v", in, got, want)
		}
	}
}

func TestEventParserBounds(t *testing.T) {
	line := []byte("data: " + strings.Repeat("x", 1<<20))
	for name, end := range map[string]string{"one line": "", "many lines": "\n"} {
		var p eventParser
		events := 0
		for range maxEventBytes>>20 + 2 {
			p.feed(line, func(event) { events++ })
			p.feed([]byte(end), func(event) { events++ })
		}
		if !p.tooLong || events > 0 {
			t.Errorf("%s: %d MiB and more were taken for an event: too long %v, events %d", name, maxEventBytes>>20, p.tooLong, events)
		}
		if held := len(p.partial) + len(p.data); held > maxEventBytes+2*len(line) {
			t.Errorf("%s: %d bytes are held", name, held)
		}
	}
}

// A large event is not what every later one costs.
func TestEventParserLetsGo(t *testing.T) {
	var p eventParser
	p.feed([]byte("data: a\ndata: "+strings.Repeat("x", 2*maxKeptBuffer)+"\n\n"), func(event) {})
	if cap(p.data) > maxKeptBuffer || len(p.partial) > 0 {
		t.Errorf("%d bytes are kept", cap(p.data)+len(p.partial))
	}
}

func TestAppendEvent(t *testing.T) {
	got := appendEvent(appendEvent(nil, "", []byte("a")), "error", []byte("b"))
	if want := "data: a\n\nevent: error\ndata: b\n\n"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEdge(t *testing.T) {
	for _, tt := range []struct {
		in   []string
		want int
	}{
		{nil, 0},
		{[]string{"data: a"}, 2},
		{[]string{"data: a\n"}, 1},
		{[]string{"data: a\n\n"}, 0},
		{[]string{"data: a\r"}, 1},
		{[]string{"data: a\r\n"}, 1},
		{[]string{"data: a\r", "\n"}, 1},
		{[]string{"data: a\r", "\n", "\r"}, 0},
		{[]string{"data: a\r\r"}, 0},
		{[]string{"data: a\n", "\n"}, 0},
		{[]string{"data: a", "\n"}, 1},
		{[]string{"data: a\n\n", "\n"}, 0},
		{[]string{"data: a\n\n", ": c\n"}, 1},
		{[]string{"data: a\n\r\n"}, 0},
	} {
		var e edge
		for _, b := range tt.in {
			e.pass([]byte(b))
		}
		if e.missing != tt.want {
			t.Errorf("after %q %d line breaks are missing, want %d", tt.in, e.missing, tt.want)
		}
		closed := string(e.close([]byte(strings.Join(tt.in, ""))))
		if events := eventsOf(closed + "data: next\n\n"); events[len(events)-1] != "|next" {
			t.Errorf("what follows %q is read as %q", closed, events)
		}
	}
}

// naiveEvents is the specification's own wording, on the stream as a whole.
func naiveEvents(stream string) []string {
	stream = strings.TrimPrefix(stream, "\ufeff")
	stream = strings.ReplaceAll(stream, "\r\n", "\n")
	stream = strings.ReplaceAll(stream, "\r", "\n")
	var got, data []string
	name := ""
	dispatch := func() {
		if data != nil {
			got = append(got, name+"|"+strings.Join(data, "\n"))
		}
		data, name = nil, ""
	}
	for line := range strings.SplitSeq(stream, "\n") {
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			dispatch()
		case line[0] == '{' && data == nil:
			got = append(got, "|"+line)
		case field == "data":
			data = append(data, value)
		case field == "event":
			name = value
		}
	}
	dispatch()
	return got
}

// However a stream is cut, its events are the same.
func FuzzEventParser(f *testing.F) {
	for _, s := range []string{
		"data: a\r\n\r\ndata: b\n\n", "event: e\rdata: x\rdata: y\r\r", "\ufeffdata:1\n\n", ": c\n\ndata", "{\"a\":1}\n\ndata: {\n}\n", "\r\n\r\r\n\n",
	} {
		f.Add(s, uint16(3), uint16(7))
	}
	f.Fuzz(func(t *testing.T, stream string, a, b uint16) {
		want := naiveEvents(stream)
		first := min(int(a), len(stream))
		second := min(first+int(b), len(stream))
		for name, got := range map[string][]string{
			"whole":           eventsOf(stream),
			"in three pieces": eventsOf(stream[:first], stream[first:second], stream[second:]),
			"byte by byte":    eventsOf(bytesOf(stream)...),
		} {
			if strings.Join(got, "\x00") != strings.Join(want, "\x00") {
				t.Fatalf("%q %s has the events %q, want %q", stream, name, got, want)
			}
		}
	})
}

func bytesOf(s string) []string {
	pieces := make([]string, len(s))
	for i := range len(s) {
		pieces[i] = s[i : i+1]
	}
	return pieces
}
