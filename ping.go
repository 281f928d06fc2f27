package main

import (
	"io"
	"time"
)

// newPinger puts a keep-alive into a stream whenever it is silent for the
// interval, between events only. Waiting for two things at once takes a
// goroutine; this is the one place that spends one. giveUp ends a read of src
// that is under way.
func newPinger(src io.ReadCloser, interval time.Duration, ping string, giveUp func()) io.ReadCloser {
	p := &pinger{src: src, interval: interval, ping: ping, giveUp: giveUp, reads: make(chan pingerRead), next: make(chan []byte)}
	go p.pump()
	return p
}

type pinger struct {
	src      io.ReadCloser
	interval time.Duration
	ping     string
	giveUp   func()
	reads    chan pingerRead // what the pump read
	next     chan []byte     // buffers for the pump to read into; closed by Close
	buf      []byte
	waiting  bool // the pump has the buffer
	edge     edge // of what was handed on
	rest     []byte
	err      error
}

type pingerRead struct {
	b   []byte
	err error
}

func (p *pinger) pump() {
	for buf := range p.next {
		n, err := p.src.Read(buf)
		p.reads <- pingerRead{buf[:n], err}
	}
	p.src.Close()
	close(p.reads)
}

func (p *pinger) Read(dst []byte) (int, error) {
	if len(p.rest) == 0 && p.err == nil {
		if ping := p.await(len(dst)); ping {
			return copy(dst, p.ping), nil
		}
	}
	n := copy(dst, p.rest)
	p.rest = p.rest[n:]
	if n > 0 {
		return n, nil
	}
	return 0, p.err
}

// await waits for the pump, or for the silence to have lasted long enough.
func (p *pinger) await(size int) (ping bool) {
	if !p.waiting {
		if len(p.buf) < size {
			p.buf = make([]byte, size)
		}
		p.next <- p.buf
		p.waiting = true
	}
	timer := time.NewTimer(p.interval)
	defer timer.Stop()
	for {
		select {
		case r := <-p.reads:
			p.waiting = false
			p.rest, p.err = r.b, r.err
			p.edge.pass(r.b)
			return false
		case <-timer.C:
			if p.edge.missing == 0 {
				return true
			}
			timer.Reset(p.interval)
		}
	}
}

// Close ends the pump, and is over when the source is closed.
func (p *pinger) Close() error {
	close(p.next)
	if p.waiting {
		p.giveUp()
		<-p.reads
	}
	<-p.reads
	return nil
}
