// The published algorithm of the network-aware plugin of kube-scheduler (NetworkOverhead), written
// anew for a comparison: per pod and node a map of the costs from that node, then for each placed pod
// and each dependency that it fulfils a check of the required maximum and a sum of costs, and at the
// end scores from 0 to 100. Costs stand in sorted lists, as the plugin finds them.
//
// Reads nodes, costs and placed pods from standard input; prints the median time of a pod in seconds,
// then the scores.
package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

const (
	maxCost      = 100
	sameZoneCost = 1
)

type node struct {
	name   string
	labels map[string]string
}

type destinationCost struct {
	destination string
	cost        int64
}

// originCosts are the costs from one region or zone.
type originCosts struct {
	origin       string
	destinations []destinationCost
}

type pair struct{ origin, destination string }

type placedPod struct {
	workload, host string
}

type dependency struct {
	workload string
	maxCost  int64
}

const (
	regionLabel = "topology.kubernetes.io/region"
	zoneLabel   = "topology.kubernetes.io/zone"
)

func main() {
	rounds, err := strconv.Atoi(os.Args[1])
	check(err)
	var nodes []*node
	tables := map[string][]originCosts{}
	var placed []placedPod
	var dependencies []dependency
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch words[0] {
		case "node":
			name := fmt.Sprintf("node-%d", len(nodes))
			nodes = append(nodes, &node{name, map[string]string{regionLabel: words[1], zoneLabel: words[2]}})
		case "pod":
			at, err := strconv.Atoi(words[1])
			check(err)
			limit, err := strconv.ParseInt(words[2], 10, 64)
			check(err)
			workload := fmt.Sprintf("workload-%d", len(placed))
			placed = append(placed, placedPod{workload, nodes[at].name})
			dependencies = append(dependencies, dependency{workload, limit})
		default:
			cost, err := strconv.ParseInt(words[3], 10, 64)
			check(err)
			tables[words[0]] = add(tables[words[0]], words[1], destinationCost{words[2], cost})
		}
	}
	check(lines.Err())
	byName := make(map[string]*node, len(nodes))
	for _, node := range nodes {
		byName[node.name] = node
	}
	times := make([]float64, 0, rounds)
	var scores []int64
	for range rounds {
		begun := time.Now()
		scores = score(nodes, byName, tables, placed, dependencies)
		times = append(times, time.Since(begun).Seconds())
	}
	slices.Sort(times)
	fmt.Println(times[rounds/2])
	for _, score := range scores {
		fmt.Println(score)
	}
}

func add(table []originCosts, origin string, cost destinationCost) []originCosts {
	for at := range table {
		if table[at].origin == origin {
			table[at].destinations = append(table[at].destinations, cost)
			return table
		}
	}
	return append(table, originCosts{origin, []destinationCost{cost}})
}

func score(
	nodes []*node, byName map[string]*node, tables map[string][]originCosts, placed []placedPod, dependencies []dependency,
) []int64 {
	costs := make(map[string]int64, len(nodes))
	kept := make(map[string]map[pair]int64)
	satisfied, violated := make(map[string]int64), make(map[string]int64)
	for _, node := range nodes {
		region, zone := node.labels[regionLabel], node.labels[zoneLabel]
		known := make(map[pair]int64)
		fill(known, tables["region"], region)
		fill(known, tables["zone"], zone)
		kept[node.name] = known
		satisfied[node.name], violated[node.name] = met(node, region, zone, known, byName, placed, dependencies)
		costs[node.name] = sum(node, region, zone, known, byName, placed, dependencies)
	}
	// Each node is then asked for by name, and the costs become scores.
	scores := make([]int64, len(nodes))
	least, greatest := int64(math.MaxInt64), int64(math.MinInt64)
	for at, node := range nodes {
		scores[at] = costs[node.name]
		least, greatest = min(least, scores[at]), max(greatest, scores[at])
	}
	for at := range scores {
		if greatest != least {
			scores[at] = 100 - int64(100*float64(scores[at]-least)/float64(greatest-least))
		} else {
			scores[at] = 100
		}
	}
	return scores
}

func fill(known map[pair]int64, table []originCosts, origin string) {
	sort.Slice(table, func(one, other int) bool { return table[one].origin < table[other].origin })
	at := sort.Search(len(table), func(at int) bool { return table[at].origin >= origin })
	if at < len(table) && table[at].origin == origin {
		for _, cost := range table[at].destinations {
			known[pair{origin, cost.destination}] = cost.cost
		}
	}
}

func met(
	node *node, region, zone string, known map[pair]int64, byName map[string]*node, placed []placedPod, dependencies []dependency,
) (satisfied, violated int64) {
	for _, pod := range placed {
		for _, dependency := range dependencies {
			if pod.workload != dependency.workload {
				continue
			}
			if pod.host == node.name {
				satisfied++
				continue
			}
			host := byName[pod.host]
			cost, isKnown := between(region, zone, host, known)
			if cost == sameZoneCost && host.labels[zoneLabel] == zone || isKnown && cost <= dependency.maxCost {
				satisfied++
			} else if isKnown {
				violated++
			}
		}
	}
	return satisfied, violated
}

func sum(
	node *node, region, zone string, known map[pair]int64, byName map[string]*node, placed []placedPod, dependencies []dependency,
) (sum int64) {
	for _, pod := range placed {
		for _, dependency := range dependencies {
			if pod.workload != dependency.workload || pod.host == node.name {
				continue
			}
			if cost, isKnown := between(region, zone, byName[pod.host], known); isKnown {
				sum += cost
			} else {
				sum += maxCost
			}
		}
	}
	return sum
}

func between(region, zone string, host *node, known map[pair]int64) (int64, bool) {
	hostRegion, hostZone := host.labels[regionLabel], host.labels[zoneLabel]
	if region != hostRegion {
		cost, isKnown := known[pair{region, hostRegion}]
		return cost, isKnown
	}
	if zone == hostZone {
		return sameZoneCost, true
	}
	cost, isKnown := known[pair{zone, hostZone}]
	return cost, isKnown
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
