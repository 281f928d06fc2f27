package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// TestDescribe reads this very test binary.
func TestDescribe(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bill, err := describe(self)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := describe(self); err != nil || !bytes.Equal(again, bill) {
		t.Errorf("the second time: %v\n%s\nthe first time:\n%s", err, again, bill)
	}
	var b bom
	if err := json.Unmarshal(bill, &b); err != nil {
		t.Fatal(err)
	}
	std := b.Components[0]
	if b.BOMFormat != "CycloneDX" || std.Name != "std" || "go"+std.Version != strings.Fields(runtime.Version())[0] || len(b.Metadata.Component.Hashes[0].Content) != 64 {
		t.Errorf("%s", bill)
	}
	if _, err := describe("main.go"); err == nil {
		t.Error("a file that is no program has a bill")
	}
	if _, err := describe("missing"); err == nil {
		t.Error("a file that is missing has a bill")
	}
}

func TestBillOf(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.0",
		Main:      debug.Module{Path: "prog", Version: "v1.0.0+dirty"},
		Deps: []*debug.Module{
			{Path: "example.com/a", Version: "v1.2.3+incompatible", Sum: "h1:aaaa"},
			{Path: "example.com/b", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/c", Version: "v2.0.0", Sum: "h1:cccc"}},
		},
		Settings: []debug.BuildSetting{{Key: "-trimpath", Value: "true"}},
	}
	b := billOf(info, sha256.Sum256(nil))
	var purls []string
	for _, c := range b.Components {
		purls = append(purls, c.PURL)
	}
	if got, want := strings.Join(purls, " "), "pkg:golang/std@1.26.0 pkg:golang/example.com/a@v1.2.3%2Bincompatible pkg:golang/example.com/c@v2.0.0"; got != want {
		t.Errorf("components %s, want %s", got, want)
	}
	if got := b.Components[1].Properties; len(got) != 1 || got[0] != (property{"go:sum", "h1:aaaa"}) {
		t.Errorf("properties %v", got)
	}
	if got := b.Metadata.Component.Properties; len(got) != 1 || got[0] != (property{"go:build:-trimpath", "true"}) {
		t.Errorf("the program's properties %v", got)
	}
	if len(b.Dependencies) != 4 || b.Dependencies[0].Ref != "prog" || len(b.Dependencies[0].DependsOn) != 3 {
		t.Errorf("dependencies %v", b.Dependencies)
	}
	if !regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(b.SerialNumber) {
		t.Errorf("serial number %s", b.SerialNumber)
	}
	if other := billOf(info, sha256.Sum256([]byte("x"))); other.SerialNumber == b.SerialNumber {
		t.Error("two programs have the same serial number")
	}
}
