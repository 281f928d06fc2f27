package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPeek(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"plain", `{"model":"a","stream":true,"messages":[{"role":"user"}]}`, `model="a" stream=true messages=[{"role":"user"}]`},
		{"odd spacing", " {\r\n\t\"model\" : \"a\" , \"x\":1e2 } \n", `model="a"`},
		{"nested keys are not top level", `{"metadata":{"model":"a","messages":1},"model":"b"}`, `model="b"`},
		{"a key written with escapes", `{"mod\u0065l":"a"}`, `model="a"`},
		{"a key that only looks like one", `{"models":"a","Model":"b","mode":1}`, ``},
		{"nothing inside", `{ }`, ``},
		{"every field", `{"contents":[],"input":"i","prompt":null,"stream_options":{}}`, `stream_options={} input="i" contents=[] prompt=null`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := peek([]byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for f, name := range fieldNames {
				if v := p.value([]byte(tt.in), field(f)); v != nil {
					got = append(got, name+"="+string(v))
				}
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("peek(%s) found %s, want %s", tt.in, s, tt.want)
			}
		})
	}
}

func TestPeekRefuses(t *testing.T) {
	deep := strings.Repeat("[", 100_000)
	for _, tt := range []struct{ name, in, want string }{
		{"nothing", ``, "empty"},
		{"space", " \n", "empty"},
		{"an array", `[1]`, "must be a JSON object"},
		{"a string", `"x"`, "must be a JSON object"},
		{"not JSON", `hello`, "unexpected 'h'"},
		{"cut in a string", `{"model":"a`, "cut off at byte 11"},
		{"cut after a key", `{"model"`, "cut off"},
		{"cut in an array", `{"messages":[{"a":1},`, "cut off"},
		{"cut before the brace", `{"model":"a"`, "cut off"},
		{"more after it", `{"model":"a"} {}`, "unexpected data after the JSON object at byte 14"},
		{"model twice", `{"model":"a","model":"a"}`, `the key "model" is there twice`},
		{"model twice, once escaped", `{"model":"a","\u006dodel":"b"}`, `the key "model" is there twice`},
		{"a comma too many", `{"a":1,}`, "where a key in double quotes should be"},
		{"a nested comma too many", `{"a":[1,]}`, "where a value should be"},
		{"a missing colon", `{"a":[{"b" 1}]}`, "where ':' should be"},
		{"the wrong bracket", `{"a":[1}}`, "where ',' or ']' should be"},
		{"the wrong brace", `{"a":{"b":1]}`, "where ',' or '}' should be"},
		{"a number with a leading zero", `{"a":01}`, "where ',' or '}' should be"},
		{"a number without digits", `{"a":-}`, "where a digit should be"},
		{"NaN", `{"a":NaN}`, "where a value should be"},
		{"a bad escape", `{"a":"\x41"}`, `unknown escape \x`},
		{"a short \\u", `{"a":"\u12g4"}`, "four hex digits"},
		{"a raw newline in a string", "{\"a\":\"b\nc\"}", "control character '\\n'"},
		{"bytes that are not UTF-8", "{\"a\":\"long enough for a word \xff\"}", "not valid UTF-8 at byte 29"},
		{"half a character at the end", "{\"a\":\"\xe4\xb8\"}", "not valid UTF-8"},
		{"hostile nesting", `{"a":` + deep, "nests deeper than 1024"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := peek([]byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("peek(%.60q) = %v, want an error with %q", tt.in, err, tt.want)
			}
		})
	}
	var twice *jsonError
	if _, err := peek([]byte(`{"stream":true,"stream":false}`)); !errors.As(err, &twice) || twice.param != "stream" {
		t.Errorf("a key that is there twice is not named: %+v", twice)
	}
}

func TestPeekAcceptsWhatUpstreamsMayJudge(t *testing.T) {
	for _, in := range []string{
		`{"x":1,"x":2}`,
		`{"a":12345678901234567890,"b":-0,"c":1.0E+2}`,
		`{"a":"\ud800 lone, \u0000 nul, \/ slash"}`,
		`{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`,
		"{\"a\":\"日本語 and a \U0001f600\"}",
	} {
		if _, err := peek([]byte(in)); err != nil {
			t.Errorf("peek(%.60s): %v", in, err)
		}
	}
}

func TestWalk(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"object", `{ "a" : 1 , "b\"c" : [ {"d":"}"} ] , "e":null }`, `a=1 b\"c=[ {"d":"}"} ] e=null`},
		{"array", ` [1, "],", {"a":[2]}, true ]`, `1 "]," {"a":[2]} true`},
		{"empty object", `{}`, ``},
		{"empty array", `[ ]`, ``},
		{"scalar", `12`, ``},
		{"object cut off in a value", `{"a":1,"b":"x`, `a=1 b="x`},
		{"array cut off", `[1,`, `1`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for k, v := range members([]byte(tt.in)) {
				got = append(got, string(k)+"="+string(v))
			}
			for v := range elements([]byte(tt.in)) {
				got = append(got, string(v))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("walked %s as %s, want %s", tt.in, s, tt.want)
			}
		})
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		`"a\n\"b\" \u00e9 \ud83d\ude00"`: "a\n\"b\" é 😀",
		`"plain"`:                        "plain",
		`""`:                             "",
		`12`:                             "",
		`null`:                           "",
	} {
		if got := text([]byte(in)); got != want {
			t.Errorf("text(%s) = %q, want %q", in, got, want)
		}
	}
}

// What the scanner takes is what the standard library takes, UTF-8 and depth apart.
func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,-0.5e+3,"\u00e9\\",true,false,null]}`, `[]`, `{"a":{}}`, `"\ud800"`, `01`, `{"a":1,}`, "\"\xff\"", `[[[`, `-`, `1.`, "\"a\x1f\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := checkJSON(b)
		if err != nil && strings.Contains(err.Error(), "nests deeper") {
			return
		}
		if want := json.Valid(b) && utf8.Valid(b); (err == nil) != want {
			t.Fatalf("checkJSON(%q) = %v, the standard library says %v", b, err, want)
		}
	})
}

// A sound object walked and put together again has the same members; an unsound
// one is walked without a panic.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{`{"a":1,"b":[{"c":"\""}]}`, `{"a":"x`, `{"`, `[1,{"a":2},"]"]`, `{"a":1,"a":"\u0061"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var object, array bytes.Buffer
		for k, v := range members(b) {
			fmt.Fprintf(&object, ",%s:%s", `"`+string(k)+`"`, v)
		}
		for v := range elements(b) {
			fmt.Fprintf(&array, ",%s", v)
		}
		if checkJSON(b) != nil {
			return
		}
		rebuilt := ""
		switch trimmed := bytes.TrimLeft(b, " \t\r\n"); trimmed[0] {
		case '{':
			rebuilt = "{" + strings.TrimPrefix(object.String(), ",") + "}"
		case '[':
			rebuilt = "[" + strings.TrimPrefix(array.String(), ",") + "]"
		default:
			return
		}
		var want, got bytes.Buffer
		if json.Compact(&want, b) != nil || json.Compact(&got, []byte(rebuilt)) != nil || want.String() != got.String() {
			t.Fatalf("%s walked as %s", b, rebuilt)
		}
	})
}

func FuzzAppendQuoted(f *testing.F) {
	f.Add("a\"b\\c\n\x00\u2028é")
	f.Fuzz(func(t *testing.T, s string) {
		quoted := appendQuoted(nil, s)
		if err := checkJSON(quoted); err != nil {
			t.Fatalf("appendQuoted(%q) = %s: %v", s, quoted, err)
		}
		if got := text(quoted); got != strings.ToValidUTF8(s, "\ufffd") && utf8.ValidString(s) {
			t.Fatalf("%q reads back as %q", s, got)
		}
	})
}

// agentBody is a request as coding agents send it: prose with escapes, in many
// messages, n bytes in all.
func agentBody(n int) []byte {
	const prose = `The handler reads the request, picks a \"route\" and\nforwards it — then it waits for the first token, and writes each one on. `
	var b bytes.Buffer
	b.WriteString(`{"model":"m","messages":[{"role":"system","content":"be brief"}`)
	for b.Len() < n-200 {
		fmt.Fprintf(&b, `,{"role":"user","content":"%s"}`, strings.Repeat(prose, min(20, (n-b.Len())/len(prose)+1)))
	}
	b.WriteString(`],"stream":false,"temperature":0.7}`)
	return b.Bytes()
}

func BenchmarkScan(b *testing.B) {
	for _, size := range []int{2_000, 200_000} {
		body := agentBody(size)
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := peek(body); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("bytes=%d/bare=jsonValid", size), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if !json.Valid(body) {
					b.Fatal("not valid")
				}
			}
		})
	}
}
