package main

import (
	"strings"
	"testing"
)

func TestJSONSchemaOf(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"B-65", `{"anyOf":[{"type":"STRING"},{"type":"NUMBER"},{"type":"INTEGER"},{"type":"BOOLEAN"},{"type":"ARRAY"},{"type":"OBJECT"},{"type":"NULL"}]}`,
			`{"anyOf":[{"type":"string"},{"type":"number"},{"type":"integer"},{"type":"boolean"},{"type":"array"},{"type":"object"},{"type":"null"}]}`},
		{"B-65 unspecified", `{"type":"TYPE_UNSPECIFIED","title":"t"}`, `{"title":"t"}`},
		{"B-65 list", `{"type":["STRING","NULL"]}`, `{"type":["string","null"]}`},
		{"B-66", `{"type":"STRING","nullable":true}`, `{"type":["string","null"]}`},
		{"B-66 false", `{"type":"STRING","nullable":false}`, `{"type":"string"}`},
		{"B-66 first", `{"nullable":true,"type":"STRING","enum":["a"]}`, `{"type":["string","null"],"enum":["a",null]}`},
		{"B-66 null is there", `{"nullable":true,"type":["STRING","NULL"],"enum":[null]}`, `{"type":["string","null"],"enum":[null]}`},
		{"B-66 anyOf", `{"nullable":true,"anyOf":[{"type":"STRING"}]}`, `{"anyOf":[{"type":"string"},{"type":"null"}]}`},
		{"B-67", `{"minItems":"1","maxItems":"3","minLength":"0","maxLength":4,"minProperties":"5","maxProperties":"6","minimum":0.5}`,
			`{"minItems":1,"maxItems":3,"minLength":0,"maxLength":4,"minProperties":5,"maxProperties":6,"minimum":0.5}`},
		{"B-67 no integer", `{"maxItems":"many"}`, `{"maxItems":"many"}`},
		{"B-68", `{"type":"OBJECT","propertyOrdering":["b","x","a"],"properties":{"z":{"type":"STRING"},"a":{"type":"STRING"},"b":{"type":"STRING"}}}`,
			`{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"string"},"z":{"type":"string"}}}`},
		{"B-69", `{"example":{"a": 1}}`, `{"examples":[{"a":1}]}`},
		{"B-69 both", `{"example":1,"examples":[2]}`, `{"examples":[2]}`},
		{"B-70", `{"type":"STRING","format":"enum","enum":["a"]}`, `{"type":"string","enum":["a"]}`},
		{"B-71", `{"format":"date-time","pattern":"^a","default":null,"title":"t","description":"STRING","required":["a"],"minimum":1,"maximum":2}`,
			`{"format":"date-time","pattern":"^a","default":null,"title":"t","description":"STRING","required":["a"],"minimum":1,"maximum":2}`},
		{"B-72", `{"any_of":[{"max_items":"2"}],"additional_properties":false,"property_ordering":[]}`, `{"anyOf":[{"maxItems":2}],"additionalProperties":false}`},
		{"B-72 both", `{"max_items":"2","maxItems":"3"}`, `{"maxItems":3}`},
		{"B-73", `{"type":"OBJECT","properties":{"type":{"type":"STRING"},"nullable":{"type":"BOOLEAN"},"format":{"type":"STRING","format":"enum"},"max_items":{"type":"INTEGER"}}}`,
			`{"type":"object","properties":{"type":{"type":"string"},"nullable":{"type":"boolean"},"format":{"type":"string"},"max_items":{"type":"integer"}}}`},
		{"values are no schemas", `{"enum":["STRING",{"type":"STRING"}],"default":{"type":"STRING"}}`, `{"enum":["STRING",{"type":"STRING"}],"default":{"type":"STRING"}}`},
		{"B.5 H-8", `{"type":"OBJECT","properties":{"type":{"type":"STRING","nullable":true},"n":{"type":"ARRAY","maxItems":"3","items":{"type":"INTEGER"}}}}`,
			`{"type":"object","properties":{"type":{"type":["string","null"]},"n":{"type":"array","maxItems":3,"items":{"type":"integer"}}}}`},
		{"below defs and additionalProperties", `{"$defs":{"a":{"type":"STRING"}},"additionalProperties":{"type":"STRING"},"prefixItems":[{"type":"STRING"}]}`,
			`{"$defs":{"a":{"type":"string"}},"additionalProperties":{"type":"string"},"prefixItems":[{"type":"string"}]}`},
		{"wrong types stay", `{"type":7,"properties":[1],"anyOf":{},"items":true,"enum":"a"}`, `{"type":7,"properties":[1],"anyOf":{},"items":true,"enum":"a"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(jsonSchemaOf([]byte(tt.in))); got != tt.want {
				t.Errorf("jsonSchemaOf(%s)\n got %s\nwant %s", tt.in, got, tt.want)
			}
		})
	}
}

func TestJSONSchemaOfDeepSchema(t *testing.T) {
	deep := strings.Repeat(`{"items":`, 500) + `{"type":"STRING"}` + strings.Repeat(`}`, 500)
	got := jsonSchemaOf([]byte(deep))
	if err := checkJSON(got); err != nil || len(got) != len(deep) {
		t.Errorf("%d bytes with error %v, want the %d bytes of the schema", len(got), err, len(deep))
	}
}
