package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Exit codes of the process.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130 // a second signal ended it at once
)

const (
	readHeaderTimeout = 20 * time.Second
	idleTimeout       = 120 * time.Second
	// maxHeaderBytes makes 64 KiB the longest header block: net/http adds 4 KiB to
	// what it is told.
	maxHeaderBytes = 64<<10 - 4<<10

	// The end of a process, beside DRAIN_TIMEOUT. An idle gateway is gone within
	// finishTimeout + flushTimeout, whatever its clients and its store do.
	cutReserve    = 2 * time.Second // of DRAIN_TIMEOUT, for the honest end of what is cut; a tenth if that is less
	finishTimeout = 2 * time.Second // for the last bytes of answers, and for connections that never asked anything
	flushTimeout  = 5 * time.Second // for turns that wait for the store

	healthTimeout = 3 * time.Second
)

func main() {
	tuneGC()
	// A log reader that goes away must not take the gateway with it.
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitInterrupted)
	}()
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the whole program: it returns the exit code once it has done what the
// flags ask, or, having served, once ctx has ended and requests in flight with it.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	opts, err := parseFlags(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	}
	if err := opts.do(ctx, environ, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "apiproxy: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// options are the flags.
type options struct {
	demo, healthcheck, version, check, doctor bool

	json    bool   // with doctor
	model   string // with doctor; "" = one of the upstream's list
	envFile string // "" = .env, which need not exist
}

// parseFlags reports a wrong flag on stderr itself.
func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("apiproxy", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.BoolVar(&o.demo, "demo", false, "serve a built-in demo upstream, with the key \"demo\", and print commands to try")
	f.BoolVar(&o.check, "check", false, "check the configuration, print a summary and exit")
	f.BoolVar(&o.doctor, "doctor", false, "probe the upstream (with -demo, the built-in one) and the store, say what to set, and exit; code 0 when nothing is broken")
	f.BoolVar(&o.json, "json", false, "with -doctor: print JSON")
	f.StringVar(&o.model, "model", "", "with -doctor: ask the model `NAME`")
	f.BoolVar(&o.healthcheck, "healthcheck", false, "ask the gateway that runs on LISTEN_ADDR for its health and exit")
	f.BoolVar(&o.version, "version", false, "print the version and exit")
	f.StringVar(&o.envFile, "env", "", "read settings from `FILE` instead of .env")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	err := o.valid(f.Args())
	if err != nil {
		fmt.Fprintln(stderr, err)
		f.Usage()
	}
	return o, err
}

func (o options) valid(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q; accepted: flags alone", rest[0])
	}
	if !o.doctor && (o.json || o.model != "") {
		return errors.New("-json and -model go with -doctor")
	}
	chosen := 0
	for _, set := range []bool{o.demo && !o.doctor, o.healthcheck, o.version, o.check, o.doctor} {
		if set {
			chosen++
		}
	}
	if chosen > 1 {
		return errors.New("-demo, -check, -doctor, -healthcheck and -version exclude each other; accepted: one of them, or -demo with -doctor")
	}
	return nil
}

func (o options) do(ctx context.Context, environ []string, stdout, stderr io.Writer) error {
	if o.version {
		_, err := fmt.Fprintln(stdout, versionLine())
		return err
	}
	values, err := o.settings(environ)
	if err != nil {
		return err
	}
	switch {
	case o.healthcheck:
		return healthcheck(ctx, values, stdout)
	case o.check:
		return check(values, stdout, stderr)
	case o.demo && o.doctor:
		return diagnoseDemo(ctx, values, o, stdout, stderr)
	case o.doctor:
		return diagnose(ctx, values, o, stdout, stderr)
	case o.demo:
		return serveDemo(ctx, values, stdout, stderr)
	}
	return serveConfigured(ctx, values, stderr)
}

// settings lays the environment over the .env file. A variable that is set but
// empty hides the file's value, so that `REDIS_URL= apiproxy` does without Redis.
// The demo reads no .env that it is not told of: it must run anywhere.
func (o options) settings(environ []string) (map[string]string, error) {
	values := map[string]string{}
	if o.envFile != "" || !o.demo {
		fromFile, err := readEnvFile(cmp.Or(o.envFile, ".env"), o.envFile != "")
		if err != nil {
			return nil, err
		}
		values = fromFile
	}
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok && name != "" {
			values[name] = value
		}
	}
	exportNetworkSettings(values)
	return values, nil
}

func readEnvFile(name string, required bool) (map[string]string, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("settings file: %w", err)
	}
	values, err := readDotEnv(data)
	if err != nil {
		return nil, problems("settings file "+name+" can't be read", err)
	}
	return values, nil
}

// exportNetworkSettings makes proxies and certificate authorities that the .env
// file names known to Go's own packages, which look for them in the environment
// alone.
func exportNetworkSettings(values map[string]string) {
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if value := values[name]; value != "" && os.Getenv(name) == "" {
			os.Setenv(name, value)
		}
	}
}

// problems puts every line of err under a title.
func problems(title string, err error) error {
	return fmt.Errorf("%s:\n  %s", title, strings.ReplaceAll(err.Error(), "\n", "\n  "))
}

// configure is loadConfig for the user of a terminal.
func configure(values map[string]string) (*config, []string, error) {
	cfg, warnings, err := loadConfig(values)
	if err != nil {
		return nil, warnings, problems("the configuration can't be used", err)
	}
	return cfg, warnings, nil
}

// configureAtTerminal is for a command that ends: it warns on stderr, and opens the
// store that the configuration asks for.
func configureAtTerminal(values map[string]string, stderr io.Writer) (*config, Store, error) {
	cfg, warnings, err := configure(values)
	for _, w := range warnings {
		fmt.Fprintln(stderr, "warning:", w)
	}
	if err != nil {
		return nil, nil, err
	}
	store, err := newStore(cfg)
	return cfg, store, err
}

// check is -check: it reports what serving would, and touches no network.
func check(values map[string]string, stdout, stderr io.Writer) error {
	cfg, store, err := configureAtTerminal(values, stderr)
	if err != nil {
		return err
	}
	_, err = io.WriteString(stdout, "configuration is valid\n"+summary(cfg))
	return errors.Join(err, store.Close())
}

// summary shows the settings that matter most, and no secret.
func summary(cfg *config) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-9s "+format+"\n", append([]any{name}, args...)...)
	}
	line("upstream", "%s (%s)", cfg.BaseURL, map[bool]string{true: "without a key", false: "with a key"}[cfg.APIKey == ""])
	line("listen", "%s (%s)", cfg.ListenAddr, cfg.scheme())
	switch cfg.Auth {
	case authKeys:
		var labels []string
		for _, k := range cfg.ClientKeys {
			labels = append(labels, k.Label)
		}
		line("clients", "keys: %s", strings.Join(labels, ", "))
	case authPassthrough:
		line("clients", "present the upstream's own keys")
	case authOff:
		line("clients", "need no key")
	}
	line("store", "%s", storeAddress(cfg))
	if cfg.MetricsAddr != "" {
		line("metrics", "%s (http, without a key)", cfg.MetricsAddr)
	}
	return b.String()
}

// storeAddress names the store without its user and password.
func storeAddress(cfg *config) string {
	u, err := url.Parse(string(cfg.RedisURL))
	if cfg.RedisURL == "" || err != nil {
		return fmt.Sprintf("in memory, %d MiB at most", cfg.MemoryStoreBytes>>20)
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// scheme is the scheme under which the gateway serves.
func (c *config) scheme() string {
	if c.TLSCertFile != "" {
		return "https"
	}
	return "http"
}

// healthcheck asks the gateway on this machine how it is. It reads no other
// settings than it needs, so that it tells of the gateway and of nothing else.
func healthcheck(ctx context.Context, values map[string]string, stdout io.Writer) error {
	s := &settings{values: values}
	addr := s.addr("LISTEN_ADDR", defaultListenAddr)
	if len(s.errs) > 0 {
		return s.errs[0]
	}
	scheme := "http"
	if s.text("TLS_CERT_FILE") != "" {
		scheme = "https"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, localURL(scheme, addr)+"/health", nil)
	if err != nil {
		return err
	}
	// No proxy, and no look at the certificate: it is made out to a public name,
	// and the connection does not leave the machine.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	resp, err := client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", r.URL, resp.Status)
	}
	_, err = fmt.Fprintln(stdout, "healthy")
	return err
}

// localURL is the address at which a client on this machine reaches a listener.
// A listener on every address takes IPv4 too.
func localURL(scheme, addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}

// serveConfigured runs the gateway as the settings say, until ctx ends.
func serveConfigured(ctx context.Context, values map[string]string, stderr io.Writer) error {
	p, err := startProcess(values, stderr)
	if err != nil {
		return err
	}
	return p.serve(ctx)
}

const demoKey = "demo"

// serveDemo runs the gateway in front of the demo upstream, which runs in the
// same process on a port of its own.
func serveDemo(ctx context.Context, values map[string]string, stdout, stderr io.Writer) error {
	key, err := applyDemoSettings(values, stderr)
	if err != nil {
		return err
	}
	upstream, err := startDemoUpstream(values)
	if err != nil {
		return err
	}
	defer upstream.Close()
	p, err := startProcess(values, stderr)
	if err != nil {
		return err
	}
	io.WriteString(stdout, demoBanner(p.cfg.scheme(), p.ln.Addr().String(), key))
	return p.serve(ctx)
}

// startDemoUpstream makes the demo the upstream of the settings.
func startDemoUpstream(values map[string]string) (*http.Server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo upstream: %w", err)
	}
	upstream := &http.Server{Handler: demoUpstream(), ReadHeaderTimeout: readHeaderTimeout}
	go upstream.Serve(ln)
	values["A4F_BASE_URL"] = "http://" + ln.Addr().String()
	return upstream, nil
}

// diagnoseDemo is -doctor for the demo, whose model that calls tools has most to
// show.
func diagnoseDemo(ctx context.Context, values map[string]string, o options, stdout, stderr io.Writer) error {
	if _, err := applyDemoSettings(values, stderr); err != nil {
		return err
	}
	upstream, err := startDemoUpstream(values)
	if err != nil {
		return err
	}
	defer upstream.Close()
	o.model = cmp.Or(o.model, "demo-tools")
	return diagnose(ctx, values, o, stdout, stderr)
}

// applyDemoSettings changes the settings to those of the demo and returns the key
// to show in commands. The key "demo" is known to everyone, so with it the demo
// listens on the loopback address alone.
func applyDemoSettings(values map[string]string, stderr io.Writer) (key string, err error) {
	for _, name := range []string{"A4F_BASE_URL", "A4F_API_KEY", "REDIS_URL"} {
		if values[name] != "" {
			fmt.Fprintf(stderr, "note: %s is not used with -demo\n", name)
		}
		delete(values, name)
	}
	s := &settings{values: values}
	addr := s.addr("LISTEN_ADDR", "127.0.0.1:8000")
	values["LISTEN_ADDR"] = addr
	if s.text("APIPROXY_API_KEYS") != "" {
		return "$KEY", nil
	}
	if len(s.errs) == 0 && !loopbackAddr(addr) {
		return "", fmt.Errorf("LISTEN_ADDR: with -demo, %q lets other machines in, and everyone knows the key %q; "+
			"accepted: a loopback address such as 127.0.0.1:8000, or any other once APIPROXY_API_KEYS is set", addr, demoKey)
	}
	if auth := s.text("APIPROXY_AUTH"); auth == "" || strings.EqualFold(auth, string(authKeys)) {
		values["APIPROXY_API_KEYS"] = demoKey + ":" + demoKey
	}
	return demoKey, nil
}

// demoBanner says where the demo is and what to try.
func demoBanner(scheme, addr, key string) string {
	curl, note := "curl", ""
	if scheme == "https" {
		curl = "curl -k"
	}
	if key != demoKey {
		note = "  Set KEY to one of APIPROXY_API_KEYS first.\n"
	}
	return strings.NewReplacer("CURL", curl, "URL", localURL(scheme, addr), "AUTH", `-H "Authorization: Bearer `+key+`"`, "KEY", key, "NOTE", note).
		Replace(`APIProxy demo: URL/v1, key KEY, built-in upstream, sessions in memory.
Open URL/ in a browser and enter the key, or try these in another terminal;
Ctrl-C ends the demo.
NOTE
# 1. Ask
CURL -sS URL/v1/chat/completions AUTH -H 'Content-Type: application/json' \
  -d '{"model":"demo","messages":[{"role":"user","content":"Hello!"}]}'; echo

# 2. Ask for a stream
CURL -sSN URL/v1/chat/completions AUTH -H 'Content-Type: application/json' \
  -d '{"model":"demo","stream":true,"messages":[{"role":"user","content":"Hello!"}]}'

# 3. Let the gateway remember
CURL -sS URL/v1/chat/completions AUTH -H 'Content-Type: application/json' -H 'X-Session-Id: try-1' \
  -d '{"model":"demo","messages":[{"role":"user","content":"My name is Ada."}]}'; echo
CURL -sS URL/v1/chat/completions AUTH -H 'Content-Type: application/json' -H 'X-Session-Id: try-1' \
  -d '{"model":"demo","messages":[{"role":"user","content":"What is my name?"}]}'; echo
CURL -sS URL/context/try-1 AUTH; echo

`)
}

// A process is the gateway with its listener, from start to drained.
type process struct {
	cfg    *config
	log    *slog.Logger
	store  Store
	server *server
	http   *http.Server
	ln     net.Listener

	operatorHTTP *http.Server // on METRICS_ADDR; nil without
	operatorLn   net.Listener

	inFlight atomic.Int64 // requests that began before the drain
	draining atomic.Bool
	cut      context.CancelCauseFunc // ends the context of every request
}

// startProcess brings everything up to the listener, which takes connections
// from here on; serve answers them.
func startProcess(values map[string]string, stderr io.Writer) (*process, error) {
	cfg, warnings, err := configure(values)
	if err != nil {
		return nil, err
	}
	p := &process{cfg: cfg, log: newLogger(cfg, stderr, values)}
	log.SetFlags(0)
	log.SetOutput(libraryLog{p.log})
	for _, w := range warnings {
		p.log.Warn(w)
	}
	if p.store, err = newStore(cfg); err != nil {
		return nil, err
	}
	if err := p.listen(); err != nil {
		return nil, errors.Join(err, p.store.Close())
	}
	p.server = newServer(cfg, p.store, p.log)
	p.http = p.newHTTPServer()
	if p.operatorLn != nil {
		p.operatorHTTP = p.newOperatorServer()
	}
	return p, nil
}

// listen opens the addresses that are served, all or none.
func (p *process) listen() (err error) {
	if p.ln, err = net.Listen("tcp", p.cfg.ListenAddr); err != nil {
		return fmt.Errorf("%w; set LISTEN_ADDR to another address", err)
	}
	if p.cfg.MetricsAddr == "" {
		return nil
	}
	if p.operatorLn, err = net.Listen("tcp", p.cfg.MetricsAddr); err != nil {
		p.ln.Close()
		return fmt.Errorf("%w; set METRICS_ADDR to another address", err)
	}
	return nil
}

// newLogger is for people on a terminal, which env describes, and for machines
// elsewhere.
func newLogger(cfg *config, w io.Writer, env map[string]string) *slog.Logger {
	if cfg.LogFormat == "text" || cfg.LogFormat == "" && isTerminal(w) {
		return slog.New(newTerminalHandler(w, cfg.LogLevel, env))
	}
	return slog.New(newJSONHandler(w, &slog.HandlerOptions{Level: cfg.LogLevel}))
}

// libraryLog takes what packages write to Go's own log. net/http quotes there the
// bytes that an upstream sent without being asked: they are an answer, and may hold
// anything.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Write(line []byte) (int, error) {
	what, _, _ := strings.Cut(strings.TrimSpace(string(line)), " starting with ")
	l.log.Warn("a library reports", "what", what)
	return len(line), nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (p *process) newHTTPServer() *http.Server {
	base, cut := context.WithCancelCause(context.Background())
	p.cut = cut
	// No WriteTimeout: it bounds the whole response, and an answer may stream for
	// minutes.
	s := &http.Server{
		Handler:                      p.counted(p.server.Handler()),
		ReadHeaderTimeout:            readHeaderTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		BaseContext:                  func(net.Listener) context.Context { return base },
		ErrorLog:                     slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
		DisableGeneralOptionsHandler: true,
	}
	if p.cfg.TLSCertFile != "" {
		pair := &keyPair{certFile: p.cfg.TLSCertFile, keyFile: p.cfg.TLSKeyFile, log: p.log}
		s.TLSConfig = &tls.Config{GetCertificate: pair.certificate}
	}
	return s
}

// newOperatorServer is the server on METRICS_ADDR. It has no part in the drain:
// figures can be read until the end.
func (p *process) newOperatorServer() *http.Server {
	return &http.Server{
		Handler:           p.server.operatorHandler(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelWarn),
	}
}

// counted counts the requests that a drain waits for. A request that the server
// took before it was told to drain is always among them: it was counted before.
func (p *process) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.inFlight.Add(1)
		if p.draining.Load() {
			p.inFlight.Add(-1)
		} else {
			defer p.inFlight.Add(-1)
		}
		next.ServeHTTP(w, r)
	})
}

// serve answers requests until ctx ends, then drains. An error means that the
// listener broke.
func (p *process) serve(ctx context.Context) error {
	p.log.Info("listening", "addr", p.ln.Addr().String(), "scheme", p.cfg.scheme(), "version", version(),
		"upstream", p.cfg.BaseURL.String(), "auth", string(p.cfg.Auth), "store", p.store.Name())
	failed := make(chan error, 2)
	go func() { failed <- p.accept() }()
	if p.operatorHTTP != nil {
		p.log.Info("serving metrics", "addr", p.operatorLn.Addr().String())
		go func() { failed <- p.operatorHTTP.Serve(p.operatorLn) }()
		defer p.operatorHTTP.Close()
	}
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	p.drain()
	return err
}

func (p *process) accept() error {
	if p.http.TLSConfig != nil {
		return p.http.ServeTLS(p.ln, "", "")
	}
	return p.http.Serve(p.ln)
}

// drain lets requests in flight finish within DRAIN_TIMEOUT and refuses new ones.
// The listener stays open meanwhile: a client that is told 503 tries elsewhere,
// and one whose connection is refused may not.
func (p *process) drain() {
	p.server.StartDraining()
	p.draining.Store(true)
	p.log.Info("draining", "in_flight", p.inFlight.Load(), "timeout", p.cfg.DrainTimeout.String())
	reserve := min(cutReserve, p.cfg.DrainTimeout/10)
	if !p.waitIdle(p.cfg.DrainTimeout - reserve) {
		p.log.Warn("cutting requests that did not finish within DRAIN_TIMEOUT", "in_flight", p.inFlight.Load())
		p.cut(errShutdown)
		p.waitIdle(finishTimeout)
	}
	p.closeConnections()
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := p.server.Close(ctx); err != nil {
		p.log.Error("closing: not everything could be written to the store", "err", err)
	}
	if err := p.store.Close(); err != nil {
		p.log.Warn("closing the store", "err", err)
	}
	p.log.Info("stopped")
}

// waitIdle reports whether no request is in flight any more.
func (p *process) waitIdle(limit time.Duration) bool {
	end := time.Now().Add(limit)
	for p.inFlight.Load() > 0 {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
	return true
}

// closeConnections closes the listener and every connection: at once those that
// are idle, at the end of finishTimeout those whose client takes its answer too
// slowly or has never asked anything.
func (p *process) closeConnections() {
	ctx, cancel := context.WithTimeout(context.Background(), finishTimeout)
	defer cancel()
	if p.http.Shutdown(ctx) != nil {
		p.http.Close()
	}
	p.cut(errShutdown)
}

// keyPair is a TLS certificate that is read anew when its files change.
type keyPair struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   string // of the files when pair was read
	failed  string // stamp of files that could not be read, so that it is logged once
	checked time.Time
}

// certificate is for tls.Config.GetCertificate. It looks at the files at most once
// a second; while they can't be used, the last good pair stays in use.
func (k *keyPair) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pair != nil && time.Since(k.checked) < time.Second {
		return k.pair, nil
	}
	k.checked = time.Now()
	// Taken before reading: a change during it shows at the next look.
	stamp := fileStamp(k.certFile) + " " + fileStamp(k.keyFile)
	if k.pair != nil && stamp == k.stamp {
		return k.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(k.certFile, k.keyFile)
	switch {
	case err == nil:
		k.pair, k.stamp = &pair, stamp
	case k.pair == nil:
		return nil, err
	case k.failed != stamp:
		k.failed = stamp
		k.log.Error("the new TLS certificate can't be used; the old one stays", "err", err)
	}
	return k.pair, nil
}

// fileStamp changes when a file does; it follows symbolic links.
func fileStamp(name string) string {
	info, err := os.Stat(name)
	if err != nil {
		return "none"
	}
	return fmt.Sprint(info.ModTime().UnixNano(), "/", info.Size())
}

// version is the module's version as the build recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// buildSettings are what the build recorded of itself: vcs.revision and the like.
func buildSettings() map[string]string {
	build := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			build[s.Key] = s.Value
		}
	}
	return build
}

// versionLine is what -version prints.
func versionLine() string {
	build := buildSettings()
	line := "apiproxy " + version()
	if revision := build["vcs.revision"]; revision != "" {
		line += " revision " + revision
	}
	if build["vcs.modified"] == "true" {
		line += " (modified)"
	}
	return line + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}
