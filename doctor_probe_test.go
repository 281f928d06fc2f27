package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

func nullLog() *log.Logger { return log.New(io.Discard, "", 0) }

func TestExplainNetwork(t *testing.T) {
	base, err := url.Parse("https://api.example.com/v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "api.example.com"}}, "no address for the name api.example.com"},
		{&net.OpError{Op: "proxyconnect", Err: &net.DNSError{Err: "no such host", Name: "proxy"}}, "HTTPS_PROXY"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, "nothing listens at api.example.com"},
		{os.ErrDeadlineExceeded, "no answer within 20s"},
		{x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}, "clock"},
		{x509.UnknownAuthorityError{}, "SSL_CERT_FILE"},
		{x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}, "for no name at all, not for h"},
		{errors.New("malformed HTTP response"), "is an HTTP server"},
	} {
		got := explainNetwork(fmt.Errorf("wrapped: %w", tt.err), base, 20*time.Second)
		if !strings.Contains(got.found+" "+got.advice, tt.want) || got.advice == "" {
			t.Errorf("%v: %+v, want %s", tt.err, got, tt.want)
		}
		if strings.Contains(got.advice, "docker") {
			t.Errorf("%v: a hint for loopback addresses alone: %s", tt.err, got.advice)
		}
	}
}

// A proxy on the way is named, and its password is not.
func TestDoctorThroughAProxy(t *testing.T) {
	g := httptest.NewServer(patient(nil))
	defer g.Close()
	d := doctorFor(t, "A4F_BASE_URL", "http://upstream.example")
	proxy, err := url.Parse(strings.Replace(g.URL, "http://", "http://user:CANARY@", 1))
	if err != nil {
		t.Fatal(err)
	}
	d.s.upstream.transport.Proxy = http.ProxyURL(proxy)
	d.examine(t.Context(), func(finding) {})
	d.expect(t, map[string]string{"network": "ok: through the proxy 127.0.0.1:", "chat": "ok: answered"})
	if out, err := marshal(d.diagnosis); err != nil || strings.Contains(string(out), "CANARY") {
		t.Errorf("%s, %v", out, err)
	}
}

// An answer without end is given up.
func TestDoctorBoundsAnswers(t *testing.T) {
	d := examined(t, on("/models", func(w http.ResponseWriter, r *http.Request) {
		block := make([]byte, 1<<20)
		for range 2*maxProbeBytes>>20 + 1 {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}))
	d.expect(t, map[string]string{"models": "warn: longer than", "chat": "ok: answered"})
	if len(d.list.body) > maxProbeBytes+(64<<10) {
		t.Errorf("%d bytes were read", len(d.list.body))
	}
}

// Pieces are told apart by when they came, however the events are cut.
func TestDoctorReadStream(t *testing.T) {
	d := doctorFor(t)
	whole := textChunk("a") + textChunk("b") + textChunk("c") + finishChunk + doneEvent
	cut := len(textChunk("a")) + 5
	r := &reply{body: []byte(whole), pieces: []piece{{cut, 10 * time.Millisecond}, {len(whole), 30 * time.Millisecond}}}
	s := d.readStream(r)
	if s.trouble != nil || s.texts != 3 || len(s.arrivals) != 2 || !s.done || s.finish() != "stop" || s.answer.Choices[0].Text != "abc" {
		t.Errorf("%+v, %+v", s, s.answer)
	}
}
