package main

import (
	"net/url"
	"testing"
)

func TestAnthropicModels(t *testing.T) {
	list := []model{
		{ID: "a", Created: 1767323100, Raw: []byte(`{"id":"a","context_length":8192,"top_provider":{"max_completion_tokens":4096}}`)},
		{ID: "org/b:1", Raw: []byte(`{"id":"org/b:1","max_model_len":32768}`)},
		newModel("c", ownedByGateway),
	}
	info := func(id, created, input, output string) string {
		return `{"type":"model","id":"` + id + `","display_name":"` + id + `","created_at":"` + created + `","deprecated_at":null,"retires_at":null,"lifecycle":"active","line":null,"max_input_tokens":` + input + `,"max_tokens":` + output + `,"capabilities":null}`
	}
	a := info("a", "2026-01-02T03:05:00Z", "8192", "4096")
	b := info("org/b:1", "1970-01-01T00:00:00Z", "32768", "null")
	c := info("c", "1970-01-01T00:00:00Z", "null", "null")
	for _, tt := range []struct{ name, query, want string }{
		{"C-151 all", "", `{"data":[` + a + `,` + b + `,` + c + `],"has_more":false,"first_id":"a","last_id":"c"}`},
		{"C-151 limit", "limit=1", `{"data":[` + a + `],"has_more":true,"first_id":"a","last_id":"a"}`},
		{"C-151 limit is enough", "limit=3", `{"data":[` + a + `,` + b + `,` + c + `],"has_more":false,"first_id":"a","last_id":"c"}`},
		{"C-151 limit 0", "limit=0", `{"data":[` + a + `,` + b + `,` + c + `],"has_more":false,"first_id":"a","last_id":"c"}`},
		{"C-151 bad limit", "limit=x", `{"data":[` + a + `,` + b + `,` + c + `],"has_more":false,"first_id":"a","last_id":"c"}`},
		{"C-151 after_id", "limit=1&after_id=a", `{"data":[` + b + `],"has_more":true,"first_id":"org/b:1","last_id":"org/b:1"}`},
		{"C-151 after the last", "after_id=c", `{"data":[],"has_more":false,"first_id":null,"last_id":null}`},
		{"C-151 after none", "after_id=z", `{"data":[],"has_more":false,"first_id":null,"last_id":null}`},
		{"C-151 before_id", "limit=1&before_id=c", `{"data":[` + b + `],"has_more":true,"first_id":"org/b:1","last_id":"org/b:1"}`},
		{"C-151 before the first", "before_id=a", `{"data":[],"has_more":false,"first_id":null,"last_id":null}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			query, err := url.ParseQuery(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			got, err := marshal(anthropicModels(list, query))
			if err != nil || string(got) != tt.want {
				t.Errorf("anthropicModels(%s) =\n%s, %v, want\n%s", tt.query, got, err, tt.want)
			}
		})
	}
	if got, err := marshal(anthropicModels(nil, nil)); err != nil || string(got) != `{"data":[],"has_more":false,"first_id":null,"last_id":null}` {
		t.Errorf("C-151: anthropicModels(nil) = %s, %v", got, err)
	}
	if got, err := marshal(anthropicModel(list[0])); err != nil || string(got) != a {
		t.Errorf("C-152: anthropicModel = %s, %v, want %s", got, err, a)
	}
	_, body := failAnthropic(anthropicNoModel("x"))
	if got, err := marshal(body); err != nil || string(got) != `{"type":"error","error":{"type":"not_found_error","message":"model: x"},"request_id":null}` {
		t.Errorf("C-155: %s, %v", got, err)
	}
}
