package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestSplice(t *testing.T) {
	const body = `{"model":"a","x":1}`
	model := span{9, 12}
	for _, tt := range []struct {
		name  string
		edits []edit
		want  string
	}{
		{"nothing to change", nil, body},
		{"replace", []edit{{model, []byte(`"longer"`)}}, `{"model":"longer","x":1}`},
		{"insert", []edit{{span{1, 1}, []byte(`"stream":true,`)}}, `{"stream":true,"model":"a","x":1}`},
		{"insert and replace", []edit{{span{1, 1}, []byte(`"s":1,`)}, {model, []byte(`"b"`)}}, `{"s":1,"model":"b","x":1}`},
		{"delete", []edit{{span{1, 13}, nil}}, `{"x":1}`},
		{"at both ends", []edit{{span{0, 0}, []byte(" ")}, {span{19, 19}, []byte("\n")}}, " " + body + "\n"},
		{"two inserts at one place", []edit{{span{1, 1}, []byte("A")}, {span{1, 1}, []byte("B")}}, `{AB"model":"a","x":1}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := splice([]byte(body), tt.edits...)
			if got := string(p.bytes()); got != tt.want {
				t.Errorf("spliced to %s, want %s", got, tt.want)
			}
			if p.size != int64(len(tt.want)) {
				t.Errorf("size %d, want %d", p.size, len(tt.want))
			}
			if err := iotest.TestReader(p.reader(), []byte(tt.want)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPayloadReader(t *testing.T) {
	body := strings.Repeat("0123456789", maxJoined/10+1)
	want := body[:5] + "-" + body[5:] + "!"
	p := splice([]byte(body+"!"), edit{span{5, 5}, []byte("-")})
	first, again, whole := p.reader(), p.reader(), p.reader()
	if b, err := io.ReadAll(iotest.OneByteReader(first)); err != nil || string(b) != want {
		t.Errorf("read %q, %v", b, err)
	}
	buf := make([]byte, len(want))
	io.ReadFull(whole, buf[:7])
	var rest bytes.Buffer
	if n, err := whole.(io.WriterTo).WriteTo(&rest); int(n) != len(want)-7 || err != nil || rest.String() != want[7:] {
		t.Errorf("wrote %d bytes of the rest, %v: %q", n, err, rest.String())
	}
	if n, err := again.Read(buf); n != len(want) || err != io.EOF {
		t.Errorf("the last read gave %d bytes and %v; it must tell the end at once", n, err)
	}
	closed := p.reader()
	closed.Close()
	if n, err := closed.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("a closed reader gave %d bytes and %v", n, err)
	}
}

func TestInsertMember(t *testing.T) {
	for in, want := range map[string]string{
		`{"a":1}`:     `{"stream":true,"a":1}`,
		`{ "a":1}`:    `{"stream":true, "a":1}`,
		` { }`:        ` {"stream":true }`,
		"{\n\"a\":1}": "{\"stream\":true,\n\"a\":1}",
	} {
		p, err := peek([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(splice([]byte(in), p.insertMember(`"stream":true`)).bytes()); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// A body with its model replaced and "stream" put in differs in nothing else.
func FuzzSplice(f *testing.F) {
	for _, s := range []string{
		`{"model":"a","messages":[]}`, `{}`, `{"x":{"model":1},"model" : "a" }`, ` { "stream":null,"model":"\u00e9"}`, `{"a":1e2,"a":"\ud800"}`,
	} {
		f.Add([]byte(s), "new name")
	}
	f.Fuzz(func(t *testing.T, body []byte, name string) {
		p, err := peek(body)
		if err != nil {
			return
		}
		edits := []edit{p.insertMember(`"inserted":true`)}
		if p.has(fieldModel) {
			edits = append(edits, edit{p.fields[fieldModel], appendQuoted(nil, name)})
		}
		before := bytes.Clone(body)
		got := splice(body, edits...).bytes()
		if !bytes.Equal(body, before) {
			t.Fatalf("the client's own bytes changed: %q", body)
		}
		if err := checkJSON(got); err != nil {
			t.Fatalf("%q became %q: %v", body, got, err)
		}
		if string(member(got, "inserted")) != "true" {
			t.Fatalf("%q has no member put in", got)
		}
		insert := []byte(`"inserted":true`)
		if !p.empty {
			insert = append(insert, ',')
		}
		back := append(bytes.Clone(got[:p.open]), got[p.open+len(insert):]...)
		if p.has(fieldModel) {
			m := p.fields[fieldModel]
			quoted := appendQuoted(nil, name)
			if !bytes.Equal(back[m.start:m.start+len(quoted)], quoted) {
				t.Fatalf("%q has not the new name", got)
			}
			back = append(append(bytes.Clone(back[:m.start]), before[m.start:m.end]...), back[m.start+len(quoted):]...)
		}
		if !bytes.Equal(back, before) {
			t.Fatalf("undone, %q is %q", before, back)
		}
	})
}
