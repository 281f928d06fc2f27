package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// gatewayMetrics are the names of all metrics that the gateway serves, those of the
// samples of histograms included.
func gatewayMetrics(t *testing.T) []string {
	t.Helper()
	g := newGateway(t, modelsUpstream(answerJSON(200, completion("hi"))))
	g.chat(`{"messages":[]}`)
	g.logLine()
	var names []string
	for sample := range readFigures(t, string(g.operatorMetrics())) {
		name, _, _ := strings.Cut(sample, "{")
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// queried are the names of metrics in a file of queries.
func queried(text string) []string {
	names := regexp.MustCompile(`\b(?:apiproxy|go|process)_[a-z0-9_]+`).FindAllString(text, -1)
	slices.Sort(names)
	return slices.Compact(names)
}

// TestDeployMetrics: what the dashboard and the rules ask for is there.
func TestDeployMetrics(t *testing.T) {
	there := gatewayMetrics(t)
	for _, file := range []string{"grafana-dashboard.json", "prometheus-rules.yml", "prometheus-rules.test.yml"} {
		names := queried(readText(t, filepath.Join("deploy", file)))
		if len(names) < 9 {
			t.Errorf("%s asks for %q alone", file, names)
		}
		for _, name := range names {
			if !slices.Contains(there, name) {
				t.Errorf("%s asks for %s, which the gateway does not serve", file, name)
			}
		}
	}
	if names := queried(`sum(rate(apiproxy_x_total{model="m"}[5m])) / process_y`); !slices.Equal(names, []string{"apiproxy_x_total", "process_y"}) {
		t.Errorf("queried finds %q", names)
	}
}

// TestDeployAlerts: every rule is tested, raised and not.
func TestDeployAlerts(t *testing.T) {
	tests := readText(t, "deploy/prometheus-rules.test.yml")
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(readText(t, "deploy/prometheus-rules.yml"), -1) {
		if n := len(regexp.MustCompile(`alertname: `+m[1]+`\b`).FindAllString(tests, -1)); n < 2 {
			t.Errorf("%s is tested %d times, want raised and not raised", m[1], n)
		}
	}
}

// TestDeployDashboard looks at what Grafana needs of a dashboard.
func TestDeployDashboard(t *testing.T) {
	var dashboard struct {
		Title  string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ RefID, Expr string }
		}
		Templating struct{ List []struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(readText(t, "deploy/grafana-dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	var variables []string
	for _, v := range dashboard.Templating.List {
		variables = append(variables, "$"+v.Name)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range dashboard.Panels {
		if p.Title == "" || ids[p.ID] || (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %d %q, a %s with %d queries", p.ID, p.Title, p.Type, len(p.Targets))
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, taken := cells[[2]int{x, y}]; taken || x >= 24 {
					t.Errorf("%q lies over %q, or beyond the edge", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			for _, v := range regexp.MustCompile(`\$\w+`).FindAllString(target.Expr, -1) {
				if v != "$__rate_interval" && !slices.Contains(variables, v) {
					t.Errorf("%q uses %s, which is not declared", p.Title, v)
				}
			}
		}
	}
}

// TestDeploySettings: the manifests and the unit set what there is to set.
func TestDeploySettings(t *testing.T) {
	known := settingNames()
	setting := regexp.MustCompile(`(?m)^\s*(?:- name: )?([A-Z][A-Z0-9_]{4,})(?::|$)`)
	for file, least := range map[string]int{"kubernetes.yaml": 6, "kubernetes-sidecar.yaml": 5} {
		names := setting.FindAllStringSubmatch(readText(t, filepath.Join("deploy", file)), -1)
		if len(names) < least {
			t.Errorf("%s sets %q", file, names)
		}
		for _, m := range names {
			if !slices.Contains(known, m[1]) && !strings.HasPrefix(m[1], "OPENAI_") {
				t.Errorf("%s sets %s, which is no setting", file, m[1])
			}
		}
	}
	files, err := os.ReadDir("deploy")
	if err != nil {
		t.Fatal(err)
	}
	about := readText(t, "deploy/README.md")
	for _, f := range files {
		if f.Name() != "README.md" && !strings.Contains(about, f.Name()) {
			t.Errorf("deploy/README.md does not name %s", f.Name())
		}
	}
}

// TestREADMEMetrics holds the table of metrics against those that there are.
func TestREADMEMetrics(t *testing.T) {
	var listed []string
	for _, row := range readmeRows(t, readmeEnglish, "metric") {
		listed = append(listed, codeSpans(row[0])...)
	}
	var served []string
	for _, name := range gatewayMetrics(t) {
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if strings.HasPrefix(base, "apiproxy_") && !slices.Contains(served, base) {
			served = append(served, base)
		}
	}
	slices.Sort(listed)
	slices.Sort(served)
	if !slices.Equal(listed, served) {
		t.Errorf("the README lists\n%q\nthere are\n%q", listed, served)
	}
}
