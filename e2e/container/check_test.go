package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheck breaks one thing at a time; each must be found.
func TestCheck(t *testing.T) {
	for _, tt := range []struct{ name, file, old, new, want string }{
		{"as it is", "Dockerfile", "", "", ""},
		{"syntax", "Dockerfile", "ENTRYPOINT", "ENTRYPONT", "unknown instruction"},
		{"fixed base", "Dockerfile", "FROM ${BASE_IMAGE}", "FROM scratch", "stages come from"},
		{"other default", "Dockerfile", "BASE_IMAGE=scratch", "BASE_IMAGE=alpine", "BASE_IMAGE is"},
		{"cgo", "Dockerfile", "CGO_ENABLED=0 ", "", "lacks CGO_ENABLED=0"},
		{"not stripped", "Dockerfile", `-ldflags "-s -w"`, "", "lacks -ldflags"},
		{"no bill", "Dockerfile", "go run ./e2e/sbom", "true ./e2e/sbom", "lacks go run ./e2e/sbom"},
		{"bill left behind", "Dockerfile", "COPY --from=build /out/sbom.cdx.json /sbom.cdx.json", "", "no bill of materials"},
		{"code before modules", "Dockerfile", "COPY go.mod go.sum ./", "COPY . .", "before the code"},
		{"root", "Dockerfile", "USER 65532:65532", "USER 0:0", "other than 0"},
		{"named user", "Dockerfile", "USER 65532:65532", "USER nobody", "other than 0"},
		{"no user", "Dockerfile", "USER 65532:65532", "", "no user"},
		{"shell entry point", "Dockerfile", `ENTRYPOINT ["/apiproxy"]`, "ENTRYPOINT /apiproxy", "no entry point"},
		{"shell health check", "Dockerfile", `CMD ["/apiproxy", "-healthcheck"]`, "CMD /apiproxy -healthcheck", "no health check"},
		{"no certificates", "Dockerfile", "COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt", "", "no certificates"},
		{"command in the image", "Dockerfile", "USER 65532:65532", "USER 65532:65532\nRUN true", "no shell"},
		{"not YAML", "docker-compose.yml", "services:", "services", "yaml"},
		{"unknown field", "docker-compose.yml", "read_only:", "readonly:", "readonly"},
		{"writable", "docker-compose.yml", "read_only: true", "read_only: false", "not confined"},
		{"capabilities", "docker-compose.yml", "cap_drop: [ALL]", "cap_drop: []", "not confined"},
		{".env required", "docker-compose.yml", "required: false", "required: true", ".env"},
		{"store", "docker-compose.yml", "redis://redis:6379/0", `""`, "REDIS_URL"},
		{"listen", "docker-compose.yml", `":8000"`, "127.0.0.1:8000", "LISTEN_ADDR"},
		{"key not passed on", "docker-compose.yml", "A4F_API_KEY:", "OTHER:", "A4F_API_KEY does not reach"},
		{"fixed port", "docker-compose.yml", "${PORT:-8000}", "8000", "PORT has no effect"},
		{"fixed redis", "docker-compose.yml", "${REDIS_IMAGE:-redis:7-alpine}", "redis:7-alpine", "REDIS_IMAGE has no effect"},
		{"waits for redis", "docker-compose.yml", "service_started", "service_healthy", "waits for redis"},
		{"stopped too soon", "docker-compose.yml", "stop_grace_period: 45s", "stop_grace_period: 10s", "before DRAIN_TIMEOUT"},
		{"no append-only file", "docker-compose.yml", `"--appendonly", "yes", `, "", "loses sessions"},
		{"eviction", "docker-compose.yml", "noeviction", "allkeys-lru", "loses sessions"},
		{"no volume", "docker-compose.yml", "redis-data:/data", "redis-data:/elsewhere", "no volume"},
		{"redis published", "docker-compose.yml", "    image: ${REDIS", "    ports: [\"6379:6379\"]\n    image: ${REDIS", "published to the host"},
		{"no restart", "docker-compose.yml", "restart: unless-stopped", "", `restart ""`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"Dockerfile", "docker-compose.yml"} {
				data, err := os.ReadFile(filepath.Join("..", "..", name))
				if err != nil {
					t.Fatal(err)
				}
				text := string(data)
				if name == tt.file {
					if !strings.Contains(text, tt.old) {
						t.Fatalf("%s holds no %q", name, tt.old)
					}
					text = strings.ReplaceAll(text, tt.old, tt.new)
				}
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			build, err := check(dir)
			switch {
			case tt.want == "" && (err != nil || !strings.Contains(build, "go build")):
				t.Errorf("check = %q, %v", build, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("check = %v, want an error with %q", err, tt.want)
			}
		})
	}
}
