package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode"
)

// -doctor asks the upstream and the store what an operator would, and says what
// to set. It sends what the gateway sends, by the gateway's own transport, and
// stores what the gateway stores.

// Marks of a finding.
const (
	markOK   = "ok"
	markWarn = "warn" // works, but something is to be set or looked at
	markFail = "fail" // clients will get errors
	markSkip = "skip" // not there, or not asked
)

// A finding is the outcome of one check.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // one of the marks
	Found  string `json:"found"`
	Advice string `json:"advice"` // what to set or do; "" for nothing
}

// A diagnosis is what -doctor -json prints.
type diagnosis struct {
	Version  string    `json:"version"`
	Upstream string    `json:"upstream"`
	Store    string    `json:"store"`
	Model    string    `json:"model"` // that was asked; "" when none could be
	OK       bool      `json:"ok"`    // chat works, and no check failed
	Checks   []finding `json:"checks"`
	Settings []string  `json:"settings"` // lines for .env
}

// A doctor is one run of -doctor. What a check learns stays for those after it.
type doctor struct {
	s        *server
	store    Store  // without the counting that the server puts around it
	key      secret // in mode passthrough, what a client would present
	mask     *mask
	patience time.Duration // for one probe

	model     string         // as it goes upstream; "" until one is chosen
	list      *reply         // the answer to GET /models
	trace     connTrace      // of the connection that it came on
	first     *reply         // the answer to the first question
	firstSaid *chatResponse  // what it says; nil while chat does not work
	firstWhy  *trouble       // why it does not
	reasoning reasoningField // that any answer had; 0 for none
	orphanTag bool           // an answer closed a <think> that it had not opened
	limit     string         // the field of the token limit
	unasked   bool           // a stream told its usage without being asked

	quirks []string // to add to UPSTREAM_QUIRKS

	diagnosis
}

// The checks, in order. Each but the first rests on those before it.
var doctorChecks = []struct {
	name string
	run  func(*doctor, context.Context) finding // without a mark: there is nothing to check
}{
	{"network", (*doctor).checkNetwork},
	{"tls", (*doctor).checkTLS},
	{"models", (*doctor).checkModels},
	{"key", (*doctor).checkKey},
	{"chat", (*doctor).checkChat},
	{"errors", (*doctor).checkErrors},
	{"streaming", (*doctor).checkStreaming},
	{"stream_usage", (*doctor).checkStreamUsage},
	{"tools", (*doctor).checkTools},
	{"parallel_tools", (*doctor).checkParallelTools},
	{"json_schema", (*doctor).checkJSONSchema},
	{"reasoning", (*doctor).checkReasoning},
	{"images", (*doctor).checkImages},
	{"native_dialects", (*doctor).checkNativeDialects},
	{"store", (*doctor).checkStore},
	{"persistence", (*doctor).checkPersistence}, // of a Redis alone, like the next
	{"eviction", (*doctor).checkEviction},
}

// newDoctor prepares a run. In mode passthrough the gateway has no key of its
// own; key is then what a client would present.
func newDoctor(cfg *config, store Store, model string, key secret) *doctor {
	known := *cfg
	if cfg.Auth == authPassthrough {
		known.APIKey = key
	}
	d := &doctor{
		s: newServer(cfg, store, slog.New(slog.DiscardHandler)), store: store, key: key, mask: newMask(&known), patience: probeTimeout,
		limit: cfg.quirk("max_tokens_field"), model: model,
	}
	d.Version, d.Upstream, d.Store = version(), cfg.BaseURL.String(), storeAddress(cfg)
	d.Settings = []string{}
	return d
}

// diagnose is -doctor. Its error says that something is broken.
func diagnose(ctx context.Context, values map[string]string, o options, stdout, stderr io.Writer) error {
	cfg, store, err := configureAtTerminal(values, stderr)
	if err != nil {
		return err
	}
	defer store.Close()
	d := newDoctor(cfg, store, o.model, secret(strings.TrimSpace(values["A4F_API_KEY"])))
	defer d.s.Close(ctx)
	if o.json {
		d.examine(ctx, func(finding) {})
		err = d.writeJSON(stdout)
	} else {
		t := newDoctorTable(stdout, values)
		t.head(d)
		d.examine(ctx, t.row)
		err = t.foot(d)
	}
	return cmp.Or(ctx.Err(), err, d.verdict())
}

// examine runs every check and hands each finding on as soon as it is there.
func (d *doctor) examine(ctx context.Context, found func(finding)) {
	for _, c := range doctorChecks {
		f := c.run(d, ctx)
		if ctx.Err() != nil {
			break
		}
		if f.Status == "" {
			continue
		}
		f.Check = c.name
		f.Found, f.Advice = d.clean(f.Found), d.clean(f.Advice)
		d.Checks = append(d.Checks, f)
		found(f)
	}
	d.Model = d.clean(d.model)
	if len(d.quirks) > 0 {
		d.Settings = append(d.Settings, d.quirksLine())
	}
	d.OK = d.verdict() == nil
}

// clean makes text fit to be shown: no key, nothing that steers a terminal.
func (d *doctor) clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, d.mask.text(s))
}

// said is a short piece of what the upstream sent. Keys are hidden before it is
// cut, so that no part of one remains.
func (d *doctor) said(s string) string {
	return strings.ToValidUTF8(printable(d.clean(strings.TrimSpace(s))), "")
}

// quirksLine is the setting with what there is and what was suggested.
func (d *doctor) quirksLine() string {
	var kept []string
	for _, q := range d.s.cfg.Quirks {
		name, _, _ := strings.Cut(q, ":")
		if !slices.ContainsFunc(d.quirks, func(s string) bool { return strings.HasPrefix(s, name+":") }) {
			kept = append(kept, q)
		}
	}
	return "UPSTREAM_QUIRKS=" + strings.Join(append(kept, d.quirks...), ",")
}

// suggest adds a quirk to the line, in place of another value of it.
func (d *doctor) suggest(quirk string) string {
	if !slices.Contains(d.quirks, quirk) {
		d.quirks = append(d.quirks, quirk)
	}
	return "UPSTREAM_QUIRKS=" + quirk
}

// verdict is nil when chat works and no check failed.
func (d *doctor) verdict() error {
	var failed []string
	for _, f := range d.Checks {
		if f.Status == markFail {
			failed = append(failed, strings.ReplaceAll(f.Check, "_", " "))
		}
	}
	switch {
	case len(failed) > 0:
		return fmt.Errorf("broken: %s", strings.Join(failed, ", "))
	case d.firstSaid == nil:
		return errors.New("chat does not work")
	}
	return nil
}

func (d *doctor) writeJSON(w io.Writer) error {
	body, err := marshal(d.diagnosis)
	if err != nil {
		return err
	}
	_, err = w.Write(append(body, '\n'))
	return err
}

// A doctorTable prints findings as they come.
type doctorTable struct {
	w     io.Writer
	marks map[string]string
	arrow string
	err   error // the first one
}

// newDoctorTable keeps to ASCII where the locale says that nothing else can be
// shown.
func newDoctorTable(w io.Writer, environ map[string]string) *doctorTable {
	if utf8Locale(environ) {
		return &doctorTable{w: w, arrow: "→", marks: map[string]string{markOK: "✓", markWarn: "!", markFail: "✗", markSkip: "–"}}
	}
	return &doctorTable{w: w, arrow: ">", marks: map[string]string{markOK: "+", markWarn: "!", markFail: "x", markSkip: "-"}}
}

// utf8Locale takes a locale that is not set for UTF-8, which is what terminals
// have by now.
func utf8Locale(environ map[string]string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(environ[name]); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true
}

func (t *doctorTable) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

func (t *doctorTable) head(d *doctor) {
	t.printf("upstream %s\nstore    %s\n\n", d.Upstream, d.Store)
}

func (t *doctorTable) row(f finding) {
	t.printf("%s %-15s  %s\n", t.marks[f.Status], strings.ReplaceAll(f.Check, "_", " "), f.Found)
	if f.Advice != "" {
		t.printf("%-17s  %s %s\n", "", t.arrow, f.Advice)
	}
}

func (t *doctorTable) foot(d *doctor) error {
	if len(d.Settings) > 0 {
		t.printf("\nsettings to consider:\n")
	}
	for _, line := range d.Settings {
		t.printf("  %s\n", line)
	}
	return t.err
}
