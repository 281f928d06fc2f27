package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The two READMEs. They say the same, line by line.
const (
	readmeEnglish = "README.md"
	readmeChinese = "README.zh-CN.md"
)

func readText(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A codeBlock is a fenced block of a README.
type codeBlock struct {
	mark string // of the comment on the line before: "run: demo", "output", … or ""
	lang string
	text string
}

func codeBlocks(t *testing.T, name string) []codeBlock {
	t.Helper()
	var blocks []codeBlock
	mark, open := "", false
	for line := range strings.Lines(readText(t, name)) {
		fence, isFence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case isFence && open:
			open = false
		case isFence:
			blocks = append(blocks, codeBlock{mark: mark, lang: fence})
			open = true
		case open:
			blocks[len(blocks)-1].text += line
		}
		mark = ""
		if comment, ok := strings.CutPrefix(line, "<!-- "); ok {
			mark, _, _ = strings.Cut(comment, " -->")
		}
	}
	if open || len(blocks) == 0 {
		t.Fatalf("%s: %d code blocks, the last one closed: %t", name, len(blocks), !open)
	}
	return blocks
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// codeSpans are the texts in backticks.
func codeSpans(line string) []string {
	var spans []string
	for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
		spans = append(spans, m[1])
	}
	return spans
}

// readmeRows are the cells of the rows of all tables whose header has that first
// cell.
func readmeRows(t *testing.T, name string, header ...string) [][]string {
	t.Helper()
	var rows [][]string
	inside := false
	for line := range strings.Lines(readText(t, name)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inside = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case slices.Contains(header, cells[0]):
			inside = true
		case inside && !strings.HasPrefix(cells[0], "---"):
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("%s: no table with the header %q", name, header)
	}
	return rows
}

// TestREADMELanguages holds the two languages together.
func TestREADMELanguages(t *testing.T) {
	english := strings.Split(readText(t, readmeEnglish), "\n")
	chinese := strings.Split(readText(t, readmeChinese), "\n")
	if !strings.Contains(english[2], "]("+readmeChinese+")") || !strings.Contains(chinese[2], "]("+readmeEnglish+")") {
		t.Errorf("the READMEs do not link to each other at the top: %q, %q", english[2], chinese[2])
	}
	if len(english) != len(chinese) {
		t.Fatalf("%s has %d lines, %s %d", readmeEnglish, len(english), readmeChinese, len(chinese))
	}
	for i := range english {
		en, zh := codeSpans(english[i]), codeSpans(chinese[i])
		slices.Sort(en)
		slices.Sort(zh)
		if !slices.Equal(en, zh) {
			t.Errorf("line %d: the code differs:\n%q\n%q", i+1, en, zh)
		}
	}
	if en, zh := codeBlocks(t, readmeEnglish), codeBlocks(t, readmeChinese); !slices.Equal(en, zh) {
		t.Errorf("the code blocks differ:\n%q\n%q", en, zh)
	}
}

// TestREADMEOrder holds the order in which a reader needs the sections.
func TestREADMEOrder(t *testing.T) {
	text, from := readText(t, readmeEnglish), 0
	for _, section := range []string{"Try it", "Use it", "Docker", "Connect a client", "Settings", "Dialects", "Sessions", "Operations", "Security", "Development", "License"} {
		at := strings.Index(text[from:], "\n## "+section+"\n")
		if at < 0 {
			t.Fatalf("the section %q is missing, or not in its place", section)
		}
		from += at
	}
}

// exampleSettings are the settings of .env.example, with their values, in order.
func exampleSettings(t *testing.T) (names []string, values map[string]string) {
	t.Helper()
	var lines []string
	setting := regexp.MustCompile(`^(# )?[A-Z][A-Z0-9_]*=`)
	for line := range strings.Lines(readText(t, ".env.example")) {
		if setting.MatchString(line) {
			line = strings.TrimPrefix(line, "# ")
			name, _, _ := strings.Cut(line, "=")
			names = append(names, name)
			lines = append(lines, line)
		}
	}
	values, err := readDotEnv([]byte(strings.Join(lines, "")))
	if err != nil {
		t.Fatal(err)
	}
	return names, values
}

// isDefault says whether a setting with that value is as good as unset.
func isDefault(t *testing.T, name, value string) bool {
	t.Helper()
	base := map[string]string{"A4F_BASE_URL": "https://api.example.com/v1", "A4F_API_KEY": "upstream-key-0123456789"}
	unset, _, err := loadConfig(base)
	if err != nil {
		t.Fatal(err)
	}
	base[name] = value
	set, _, err := loadConfig(base)
	return err == nil && reflect.DeepEqual(set, unset)
}

func TestREADMESettings(t *testing.T) {
	names, values := exampleSettings(t)
	for _, tt := range []struct{ file, header, required string }{{readmeEnglish, "name", "required"}, {readmeChinese, "名称", "必填"}} {
		t.Run(tt.file, func(t *testing.T) {
			var listed []string
			for _, row := range readmeRows(t, tt.file, tt.header) {
				if strings.HasPrefix(row[0], "**") {
					continue // a heading inside the table
				}
				name, def := codeSpans(row[0])[0], row[1]
				listed = append(listed, name)
				_, _, err := loadConfig(map[string]string{})
				switch written := codeSpans(def); {
				case def == tt.required:
					if err == nil || !strings.Contains(err.Error(), name+":") {
						t.Errorf("%s is said to be required, and is not: %v", name, err)
					}
				case len(written) == 0:
					if isDefault(t, name, values[name]) {
						t.Errorf("%s has the default %q, and %q is said", name, values[name], def)
					}
				case strings.Contains(written[0], "…"):
					if !isDefault(t, name, values[name]) || !matchesShortened(values[name], written[0]) {
						t.Errorf("%s: %q does not stand for the default %q", name, written[0], values[name])
					}
				case !isDefault(t, name, written[0]):
					t.Errorf("%s: %q is not the default", name, written[0])
				}
			}
			if !slices.Equal(listed, names) {
				t.Errorf("the table lists\n%q\n.env.example has\n%q", listed, names)
			}
		})
	}
}

// matchesShortened says whether text is what a README shows with "…" for the
// parts left out.
func matchesShortened(text, shown string) bool {
	pieces := strings.Split(strings.TrimSpace(shown), "…")
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), pieces[0])
	if !ok || len(pieces) == 1 {
		return ok && rest == ""
	}
	for _, piece := range pieces[1 : len(pieces)-1] {
		_, after, found := strings.Cut(rest, piece)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, pieces[len(pieces)-1])
}

func TestMatchesShortened(t *testing.T) {
	for _, tt := range []struct {
		text, shown string
		want        bool
	}{
		{"abc", "abc", true},
		{"abc\n", "abc", true},
		{"abcd", "abc", false},
		{"abc", "a…c", true},
		{"abc", "a…b", false},
		{"abcabc", "a…b…c", true},
		{"acb", "a…b…c", false},
		{"xabc", "a…c", false},
		{"abc", "…", true},
	} {
		if got := matchesShortened(tt.text, tt.shown); got != tt.want {
			t.Errorf("matchesShortened(%q, %q) = %t, want %t", tt.text, tt.shown, got, tt.want)
		}
	}
}

// demoURL is where the demo listens when nothing else is said.
const demoURL = "http://127.0.0.1:8000"

// TestREADMECommands runs what the README shows with the demo, in its order, and
// compares what comes with what it says.
func TestREADMECommands(t *testing.T) {
	blocks := codeBlocks(t, readmeEnglish)
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("curl is not installed")
		}
		t.Log("curl is not installed: the commands are not run")
		return
	}
	g := startGateway(t, []string{"LISTEN_ADDR=127.0.0.1:0"}, "-demo")
	url := "http://" + g.addr(t)
	commands := 0
	for i, b := range blocks {
		if b.mark != "run: demo" {
			continue
		}
		commands++
		if i+1 == len(blocks) || blocks[i+1].mark != "output" {
			t.Errorf("no output follows:\n%s", b.text)
			continue
		}
		got, err := exec.Command("sh", "-e", "-c", strings.ReplaceAll(b.text, demoURL, url)).CombinedOutput()
		if want := blocks[i+1].text; err != nil || !matchesShortened(string(got), want) {
			t.Errorf("%s\nends with error %v and prints\n%s\nwant\n%s", b.text, err, got, want)
		}
	}
	if commands < 3 {
		t.Errorf("%d blocks of commands for the demo, want 3 or more", commands)
	}
}

// TestREADMEEveryCommandIsRun finds commands that neither a test nor CI runs. Those
// for Docker need an engine; e2e/container checks the files that they use.
func TestREADMEEveryCommandIsRun(t *testing.T) {
	ci := strings.ReplaceAll(readText(t, ".ci/run"), " -benchtime 1x", "") + readText(t, ".github/workflows/ci.yml")
	script := readText(t, "e2e/readme")
	for _, b := range codeBlocks(t, readmeEnglish) {
		switch b.mark {
		case "run: demo", "run: doctor", "output":
			// By TestREADMECommands and TestREADMEDoctor.
		case "run: ci":
			for command := range strings.Lines(b.text) {
				if !strings.Contains(ci, " "+command) {
					t.Errorf("CI does not run %q", command)
				}
			}
		case "run: docker":
			if b.text != "docker compose up -d\n" {
				t.Errorf("nothing checks %q", b.text)
			}
		case "run: start", "run: setup", "run: use":
			if !strings.Contains(script, "commands '"+b.mark+"'") {
				t.Errorf("e2e/readme does not run the blocks %q", b.mark)
			}
		default:
			checkExample(t, b, script)
		}
	}
}

// clientSetting is a line of the settings of a client: the gateway's address, its
// key, or a model of the demo.
var clientSetting = regexp.MustCompile(`^export [A-Z_]+=(` + regexp.QuoteMeta(demoURL) + `|demo)\n$`)

func checkExample(t *testing.T, b codeBlock, script string) {
	t.Helper()
	switch b.lang {
	case "python", "js":
		if !strings.Contains(script, "examples "+b.lang) {
			t.Errorf("e2e/readme does not run the examples in %s", b.lang)
		}
	case "sh":
		if b.mark != "client" {
			t.Errorf("nobody runs this block, marked %q:\n%s", b.mark, b.text)
		}
		for line := range strings.Lines(b.text) {
			if !clientSetting.MatchString(line) {
				t.Errorf("%q does not set a variable of a client", line)
			}
		}
	case "toml":
		if !strings.Contains(b.text, "\nbase_url = \""+demoURL+"/v1\"\n") || !strings.Contains(b.text, "\nwire_api = \"responses\"\n") {
			t.Errorf("not a provider that leads to the gateway:\n%s", b.text)
		}
	case "json":
		if !json.Valid([]byte(b.text)) {
			t.Errorf("not JSON:\n%s", b.text)
		}
	default:
		t.Errorf("nobody runs this block of %q, marked %q:\n%s", b.lang, b.mark, b.text)
	}
}

// TestREADMENames looks for the names that the README gives to errors and log
// fields in the code that is to use them.
func TestREADMENames(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(name, "demo") {
			code.WriteString(readText(t, name))
		}
	}
	names := codesOf(readmeRows(t, readmeEnglish, "status"), 1)
	names = append(names, codesOf(readmeRows(t, readmeEnglish, "field"), 0)...)
	for _, name := range names {
		if !strings.Contains(code.String(), `"`+name+`"`) {
			t.Errorf("the README names %q, which the code does not have", name)
		}
	}
	for _, m := range regexp.MustCompile(`slog\.[A-Z]\w+\("(\w+)"`).FindAllStringSubmatch(readText(t, "log.go"), -1) {
		if field := m[1]; !slices.Contains(names, field) {
			t.Errorf("the README does not name the log field %q", field)
		}
	}
}

// TestREADMEQuirks holds the table of quirks against those that the code asks for.
func TestREADMEQuirks(t *testing.T) {
	var said []string
	for _, row := range readmeRows(t, readmeEnglish, "quirk") {
		written := codeSpans(row[0])[0]
		if _, _, err := loadConfig(map[string]string{"A4F_BASE_URL": "https://api.example.com", "A4F_API_KEY": "k", "UPSTREAM_QUIRKS": written}); err != nil {
			t.Errorf("%s: %v", written, err)
		}
		name, _, _ := strings.Cut(written, ":")
		said = append(said, name)
	}
	asked := regexp.MustCompile(`\bquirk\("(\w+)"\)`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var used []string
	for _, name := range files {
		for _, m := range asked.FindAllStringSubmatch(readText(t, name), -1) {
			if !strings.HasSuffix(name, "_test.go") && !slices.Contains(used, m[1]) {
				used = append(used, m[1])
			}
		}
	}
	slices.Sort(said)
	slices.Sort(used)
	if !slices.Equal(said, used) {
		t.Errorf("the README has the quirks\n%q\nthe code asks for\n%q", said, used)
	}
}

// TestREADMEPromises looks for the tests that the README names.
func TestREADMEPromises(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, name := range files {
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(readText(t, name), -1) {
			tests[m[1]] = true
		}
	}
	for _, row := range readmeRows(t, readmeEnglish, "promise") {
		named := codeSpans(row[1])
		if len(named) == 0 {
			t.Errorf("nothing proves %q", row[0])
		}
		for _, name := range named {
			if info, err := os.Stat(name); !tests[name] && (err != nil || !info.IsDir()) {
				t.Errorf("%q is proven by %s, which does not exist", row[0], name)
			}
		}
	}
}

// codesOf are the texts in backticks of one column.
func codesOf(rows [][]string, column int) []string {
	var codes []string
	for _, row := range rows {
		codes = append(codes, codeSpans(row[column])...)
	}
	return codes
}

// TestREADMEUpstreams checks that the addresses in the table can be used.
func TestREADMEUpstreams(t *testing.T) {
	for _, row := range readmeRows(t, readmeEnglish, "upstream") {
		address := codeSpans(row[1])[0]
		if base, err := joinBase(address); err != nil || base.String() != address {
			t.Errorf("%s: %s becomes %v, %v", row[0], address, base, err)
		}
	}
}

// TestSecurityNamesTests looks for the tests that SECURITY.md names, and for the
// settings.
func TestSecurityNamesTests(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, name := range files {
		tests.WriteString(readText(t, name))
	}
	settings, _ := exampleSettings(t)
	said := codeSpans(readText(t, "SECURITY.md"))
	if len(said) < 40 {
		t.Errorf("only %d names", len(said))
	}
	setting := regexp.MustCompile(`^[A-Z][A-Z0-9]*_[A-Z_]+`)
	for _, name := range said {
		if strings.HasPrefix(name, "Test") && !strings.Contains(tests.String(), "\nfunc "+name+"(t *testing.T) {") {
			t.Errorf("there is no %s", name)
		}
		if m := setting.FindString(name); m != "" && !slices.Contains(settings, m) {
			t.Errorf("there is no setting %s", m)
		}
	}
}
