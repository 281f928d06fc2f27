package main

import (
	"os"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
)

// leanHeap is the heap size up to which garbage may gather, however little is in
// use. Go's own choice would be 4 MiB, which a gateway under load fills a hundred
// times a second, and with next to nothing that outlives its request. This is
// worth a tenth of the CPU time of a short request.
const leanHeap = 32 << 20

// tuneGC lets the heap grow to leanHeap before it is collected, and beyond that
// to twice what is in use. A GOGC that is set goes before it; GOMEMLIMIT holds
// anyway.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		setGCPercent()
		afterGC()
	}
}

// afterGC sets the percentage anew after each collection: a finalizer runs when
// its object was found to be garbage.
func afterGC() {
	type mark struct{ _ [16]byte }
	runtime.SetFinalizer(&mark{}, func(*mark) {
		setGCPercent()
		afterGC()
	})
}

func setGCPercent() {
	s := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	runtimemetrics.Read(s)
	live := max(s[0].Value.Uint64(), 1<<20) // 0 before the first collection
	base := live + s[1].Value.Uint64() + s[2].Value.Uint64()
	debug.SetGCPercent(max(100, int(100*(leanHeap-int64(live))/int64(base))))
}
