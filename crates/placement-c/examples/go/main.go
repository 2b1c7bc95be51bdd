// Scores 5,000 nodes for a pod through the C ABI, as a scheduler plugin's PreScore would, and says how
// long one call takes. Run by the scorecard: cargo run --release -p placement-c --example scorecard
package main

/*
#cgo CFLAGS: -I${SRCDIR}/../../include
#cgo LDFLAGS: -lm -ldl -lpthread
#include "kantai_placement.h"
#include <stdlib.h>
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
	"unsafe"
)

// Costs by site. A goroutine may change its thread between two calls: errors belong to the call.
type Costs struct{ handle *C.KantaiCosts }

func check(status uint32, text *C.char) error {
	if status == C.KANTAI_STATUS_OK {
		return nil
	}
	defer C.kantai_string_free(text)
	return errors.New(C.GoString(text))
}

// BySite makes costs of nodes at sites; between is a square table of seconds.
func BySite(names []string, sites []C.size_t, between []float64, siteCount int) (*Costs, error) {
	texts := make([]*C.char, len(names))
	for at, name := range names {
		texts[at] = C.CString(name)
		defer C.free(unsafe.Pointer(texts[at]))
	}
	// The names are C's; the array that holds them is copied to where C may read it.
	size := C.size_t(len(texts)) * C.size_t(unsafe.Sizeof((*C.char)(nil)))
	array := (**C.char)(C.malloc(size))
	defer C.free(unsafe.Pointer(array))
	copy(unsafe.Slice(array, len(texts)), texts)
	costs, text := &Costs{}, (*C.char)(nil)
	status := C.kantai_costs_by_site(array, &sites[0], nil, C.size_t(len(names)),
		(*C.double)(&between[0]), C.size_t(siteCount), &costs.handle, &text)
	return costs, check(status, text)
}

// ForDemand scores all nodes by the response time that requests from these nodes would see.
func (c *Costs) ForDemand(from []C.size_t, requests []float64, servingSeconds float64, scores []C.uint8_t) error {
	var text *C.char
	status := C.kantai_score_demand(c.handle, &from[0], (*C.double)(&requests[0]), C.size_t(len(from)),
		C.double(servingSeconds), nil, C.size_t(len(scores)), 100, &scores[0], &text)
	return check(status, text)
}

// ForDependencies scores all nodes for a pod that will call pods on these nodes.
func (c *Costs) ForDependencies(called []C.size_t, scores []C.uint8_t) error {
	var text *C.char
	status := C.kantai_score_dependencies(c.handle, &called[0], C.size_t(len(called)), nil,
		C.size_t(len(scores)), 100, &scores[0], &text)
	return check(status, text)
}

func (c *Costs) Close() { C.kantai_costs_free(c.handle) }

const nodes, sites, peers, rounds = 5000, 50, 10, 501

func main() {
	if C.kantai_abi_version() != C.KANTAI_ABI_VERSION {
		fail(fmt.Errorf("the library has ABI version %d", C.kantai_abi_version()))
	}
	names, where := make([]string, nodes), make([]C.size_t, nodes)
	for node := range nodes {
		names[node], where[node] = fmt.Sprintf("node-%d", node), C.size_t(node%sites)
	}
	between := make([]float64, sites*sites)
	for at := range between {
		from, to := at/sites, at%sites
		between[at] = 0.0002 + 0.001*float64((from-to)*(from-to))/float64(sites)
	}
	costs, err := BySite(names, where, between, sites)
	fail(err)
	defer costs.Close()
	from, requests := make([]C.size_t, peers), make([]float64, peers)
	for peer := range peers {
		from[peer], requests[peer] = C.size_t(peer*313), float64(1+peer)
	}
	scores := make([]C.uint8_t, nodes)
	fmt.Printf("demand_us %.1f\n", median(func() error { return costs.ForDemand(from, requests, 0.004, scores) }))
	if slices.Max(scores) != 100 || slices.Min(scores) == 100 {
		fail(errors.New("all nodes have the same score"))
	}
	fmt.Printf("dependencies_us %.1f\n", median(func() error { return costs.ForDependencies(from, scores) }))
	if slices.Max(scores) != 100 || slices.Min(scores) != 0 {
		fail(errors.New("the scores do not use their range"))
	}
	fmt.Printf("border_us %.3f\n", median(func() error { C.kantai_abi_version(); return nil }))
}

// The median time of a call, microseconds.
func median(call func() error) float64 {
	times := make([]time.Duration, rounds)
	for round := range times {
		begun := time.Now()
		fail(call())
		times[round] = time.Since(begun)
	}
	slices.Sort(times)
	return float64(times[rounds/2].Nanoseconds()) / 1000
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
