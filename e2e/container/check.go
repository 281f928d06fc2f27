// Command container checks, without a Docker engine, the Dockerfile and the
// docker-compose.yml of the folder that it is given. They are read by the
// parsers of Docker's own builder and of Docker Compose. On success it prints the
// command that builds the binary and its bill of materials, so that a test builds
// them as the image does.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: container FOLDER")
		os.Exit(2)
	}
	build, err := check(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(build)
}

func check(dir string) (build string, err error) {
	build, dockerErr := checkDockerfile(filepath.Join(dir, "Dockerfile"))
	return build, errors.Join(dockerErr, checkCompose(dir))
}

// A report collects what is wrong with one file.
type report struct {
	file string
	errs []error
}

func (r *report) want(ok bool, format string, args ...any) {
	if !ok {
		r.errs = append(r.errs, fmt.Errorf(r.file+": "+format, args...))
	}
}

func checkDockerfile(name string) (build string, err error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	parsed, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	stages, args, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	r := &report{file: "Dockerfile"}
	r.want(len(parsed.Warnings) == 0, "the parser warns: %v", parsed.Warnings)
	r.want(len(stages) == 2, "%d stages, want 2", len(stages))
	r.checkBaseImages(stages, args)
	build = r.checkBuild(&stages[0])
	r.checkImage(&stages[len(stages)-1])
	return build, errors.Join(r.errs...)
}

// checkBaseImages wants both base images to be build arguments with a default.
func (r *report) checkBaseImages(stages []instructions.Stage, args []instructions.ArgCommand) {
	defaults := map[string]string{}
	for _, a := range args {
		for _, arg := range a.Args {
			defaults[arg.Key] = arg.ValueString()
		}
	}
	bases := []string{}
	for _, s := range stages {
		bases = append(bases, s.BaseName)
	}
	want := []string{"${GO_IMAGE}", "${BASE_IMAGE}"}
	r.want(slices.Equal(bases, want), "the stages come from %q, want %q", bases, want)
	r.want(defaults["GO_IMAGE"] == "golang:1.26-alpine", "GO_IMAGE is %q by default", defaults["GO_IMAGE"])
	r.want(defaults["BASE_IMAGE"] == "scratch", "BASE_IMAGE is %q by default", defaults["BASE_IMAGE"])
}

// checkBuild returns the command that builds the binary.
func (r *report) checkBuild(stage *instructions.Stage) (build string) {
	var steps []string
	for _, c := range stage.Commands {
		steps = append(steps, fmt.Sprint(c))
		if run, ok := c.(*instructions.RunCommand); ok && strings.Contains(strings.Join(run.CmdLine, " "), "go build") {
			build = strings.Join(run.CmdLine, " ")
		}
	}
	modules := slices.Index(steps, "RUN go mod download")
	r.want(modules >= 0 && modules < slices.Index(steps, "COPY . ."), "modules are not downloaded before the code is copied: %q", steps)
	for _, part := range []string{"CGO_ENABLED=0", "-trimpath", `-ldflags "-s -w"`, "go run ./e2e/sbom /out/apiproxy >/out/sbom.cdx.json"} {
		r.want(strings.Contains(build, part), "the build command %q lacks %s", build, part)
	}
	return build
}

// checkImage looks at the stage that becomes the image.
func (r *report) checkImage(stage *instructions.Stage) {
	found := map[string]bool{}
	for _, c := range stage.Commands {
		switch c := c.(type) {
		case *instructions.RunCommand:
			r.want(false, "%s: there is no shell in the image", c)
		case *instructions.UserCommand:
			found["user"] = true
			r.want(regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`).MatchString(c.User), "USER %s: want numbers other than 0, since the image has no /etc/passwd", c.User)
		case *instructions.ExposeCommand:
			found["port"] = slices.Equal(c.Ports, []string{"8000"})
		case *instructions.EntrypointCommand:
			found["entry point"] = !c.PrependShell && slices.Equal(c.CmdLine, []string{"/apiproxy"})
		case *instructions.HealthCheckCommand:
			found["health check"] = c.Health != nil && slices.Equal(c.Health.Test, []string{"CMD", "/apiproxy", "-healthcheck"})
		case *instructions.CopyCommand:
			found["certificates"] = found["certificates"] || c.DestPath == "/etc/ssl/certs/ca-certificates.crt"
			found["binary"] = found["binary"] || c.DestPath == "/apiproxy"
			found["bill of materials"] = found["bill of materials"] || c.DestPath == "/sbom.cdx.json"
		}
	}
	for _, part := range []string{"user", "port", "entry point", "health check", "certificates", "binary", "bill of materials"} {
		r.want(found[part], "the image has no %s, or not the right one", part)
	}
}

// checkCompose loads docker-compose.yml as a user does who has no .env, and as
// one who sets everything that can be set.
func checkCompose(dir string) error {
	r := &report{file: "docker-compose.yml"}
	plain, err := loadCompose(dir)
	if err != nil {
		return err
	}
	r.checkGateway(plain.Services["gateway"])
	r.checkRedis(plain.Services["redis"])
	set, err := loadCompose(dir, "PORT=127.0.0.1:9000", "REDIS_IMAGE=r", "GO_IMAGE=g", "BASE_IMAGE=b",
		"A4F_BASE_URL=https://api.example.com", "A4F_API_KEY=k", "APIPROXY_API_KEYS=c")
	if err != nil {
		return err
	}
	r.checkSettings(set)
	return errors.Join(r.errs...)
}

func loadCompose(dir string, env ...string) (*types.Project, error) {
	o, err := cli.NewProjectOptions([]string{filepath.Join(dir, "docker-compose.yml")}, cli.WithWorkingDirectory(dir), cli.WithEnv(env))
	if err != nil {
		return nil, err
	}
	p, err := o.LoadProject(context.Background())
	if err != nil {
		return nil, err
	}
	if len(p.Services) != 2 {
		return nil, fmt.Errorf("docker-compose.yml: services %v, want gateway and redis", p.ServiceNames())
	}
	return p, nil
}

func (r *report) checkGateway(s types.ServiceConfig) {
	r.want(buildArg(s, "GO_IMAGE") == "golang:1.26-alpine" && buildArg(s, "BASE_IMAGE") == "scratch", "gateway: the base images are not the default ones")
	r.want(len(s.Ports) == 1 && s.Ports[0].Published == "8000" && s.Ports[0].Target == 8000, "gateway: ports %v", s.Ports)
	r.want(len(s.EnvFiles) == 1 && !bool(s.EnvFiles[0].Required), "gateway: .env must be used and may be absent: %v", s.EnvFiles)
	r.want(valueOf(s.Environment, "REDIS_URL") == "redis://redis:6379/0", "gateway: REDIS_URL does not name the redis service")
	r.want(valueOf(s.Environment, "LISTEN_ADDR") == ":8000", "gateway: LISTEN_ADDR is not the port that is published")
	r.want(s.DependsOn["redis"].Condition == types.ServiceConditionStarted, "gateway: waits for redis, which it can do without")
	r.want(s.ReadOnly && slices.Equal(s.CapDrop, []string{"ALL"}) && slices.Contains(s.SecurityOpt, "no-new-privileges:true"), "gateway: not confined")
	r.want(s.Restart == "unless-stopped", "gateway: restart %q", s.Restart)
	r.want(s.StopGracePeriod != nil && time.Duration(*s.StopGracePeriod) > 40*time.Second, "gateway: stopped before DRAIN_TIMEOUT is over")
}

func (r *report) checkRedis(s types.ServiceConfig) {
	r.want(s.Image == "redis:7-alpine", "redis: image %q", s.Image)
	r.want(len(s.Ports) == 0, "redis: published to the host")
	command := strings.Join(s.Command, " ")
	r.want(strings.Contains(command, "--appendonly yes") && strings.Contains(command, "--maxmemory-policy noeviction"), "redis: %q loses sessions", command)
	r.want(len(s.Volumes) == 1 && s.Volumes[0].Type == "volume" && s.Volumes[0].Target == "/data", "redis: no volume under /data")
	r.want(s.HealthCheck != nil, "redis: no health check")
	r.want(s.Restart == "unless-stopped", "redis: restart %q", s.Restart)
}

func (r *report) checkSettings(p *types.Project) {
	g := p.Services["gateway"]
	r.want(p.Services["redis"].Image == "r", "REDIS_IMAGE has no effect")
	r.want(buildArg(g, "GO_IMAGE") == "g" && buildArg(g, "BASE_IMAGE") == "b", "GO_IMAGE or BASE_IMAGE has no effect")
	r.want(len(g.Ports) == 1 && g.Ports[0].HostIP == "127.0.0.1" && g.Ports[0].Published == "9000", "PORT has no effect: %v", g.Ports)
	environment := g.Environment.Resolve(p.Environment.Resolve)
	for _, name := range []string{"A4F_BASE_URL", "A4F_API_KEY", "APIPROXY_API_KEYS"} {
		r.want(valueOf(environment, name) != "", "%s does not reach the gateway from the environment", name)
	}
}

func buildArg(s types.ServiceConfig, name string) string {
	if s.Build == nil {
		return ""
	}
	return valueOf(s.Build.Args, name)
}

func valueOf(m types.MappingWithEquals, name string) string {
	if v := m[name]; v != nil {
		return *v
	}
	return ""
}
