// Records what the stock autoscaler of Knative answers, for the tests beside this folder.
//
// It calls Knative's own packages as a library, at the version that the lab pins:
//
//	cd tests/local-control-plane/components/knative-serving
//	golden=../../../../crates/autoscaler/tests/golden
//	go run $golden/record.go decisions > $golden/kpa-1.15.2.jsonl
//	go run $golden/record.go bounds > $golden/bounds-1.15.2.jsonl
//	go run $golden/record.go settings > $golden/settings-1.15.2.jsonl
//
// Traces are the same each time, but for the instant that they begin at.
package main

import (
	"context"
	"encoding/json"
	"log"
	"math/rand"
	"os"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"knative.dev/serving/pkg/apis/autoscaling"
	"knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/autoscaler/aggregation"
	asconfig "knative.dev/serving/pkg/autoscaler/config"
	"knative.dev/serving/pkg/autoscaler/scaling"
	kparesources "knative.dev/serving/pkg/reconciler/autoscaling/kpa/resources"
	"knative.dev/serving/pkg/reconciler/autoscaling/resources"
)

const (
	traces  = 40
	samples = 80
	bounded = 200
	prefix  = "autoscaling.knative.dev/"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: record.go decisions|bounds|settings")
	}
	switch out := json.NewEncoder(os.Stdout); os.Args[1] {
	case "decisions":
		random := rand.New(rand.NewSource(1))
		for range traces {
			encode(out, record(random))
		}
	case "bounds":
		random := rand.New(rand.NewSource(2))
		for range bounded {
			encode(out, bounds(random))
		}
	case "settings":
		answers(out)
	default:
		log.Fatalf("unknown recording %q", os.Args[1])
	}
}

func encode(out *json.Encoder, value any) {
	if err := out.Encode(value); err != nil {
		log.Fatalf("failed to write: %v", err)
	}
}

// trace is one revision's settings, what happened to it, and what the autoscaler made of that.
type trace struct {
	Annotations          map[string]string `json:"annotations"`
	ConfigMap            map[string]string `json:"config_map"`
	ContainerConcurrency int64             `json:"container_concurrency"`
	Reachable            bool              `json:"reachable"`
	Start                int64             `json:"start"`
	Second               []int64           `json:"second"`
	Ready                []int             `json:"ready"`
	Demand               []float64         `json:"demand"`
	Stable               []float64         `json:"stable"`
	Panic                []float64         `json:"panic"`
	Want                 []int32           `json:"want"`
	Excess               []int32           `json:"excess"`
}

type window interface {
	Record(time.Time, float64)
	WindowAverage(time.Time) float64
}

// demand is the autoscaler's source of metrics; it remembers what it answered.
type demand struct {
	stable, panic         window
	stableValue, panicked float64
}

func (d *demand) averages(now time.Time) (float64, float64, error) {
	d.stableValue, d.panicked = d.stable.WindowAverage(now), d.panic.WindowAverage(now)
	return d.stableValue, d.panicked, nil
}

func (d *demand) StableAndPanicConcurrency(_ types.NamespacedName, now time.Time) (float64, float64, error) {
	return d.averages(now)
}

func (d *demand) StableAndPanicRPS(_ types.NamespacedName, now time.Time) (float64, float64, error) {
	return d.averages(now)
}

type pods struct{ ready int }

func (p *pods) ReadyCount() (int, error)    { return p.ready, nil }
func (p *pods) NotReadyCount() (int, error) { return 0, nil }

func record(random *rand.Rand) trace {
	t := settings(random)
	config, err := asconfig.NewConfigFromMap(t.ConfigMap)
	if err != nil {
		log.Fatalf("failed to read %v: %v", t.ConfigMap, err)
	}
	if err := autoscaling.ValidateAnnotations(context.Background(), config, t.Annotations); err != nil {
		log.Fatalf("failed to read %v: %v", t.Annotations, err)
	}
	pa := &v1alpha1.PodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hello-00001", Annotations: t.Annotations},
		Spec:       v1alpha1.PodAutoscalerSpec{ContainerConcurrency: t.ContainerConcurrency},
	}
	if !t.Reachable {
		pa.Spec.Reachability = v1alpha1.ReachabilityUnreachable
	}
	spec := kparesources.MakeDecider(pa, config).Spec
	metric := resources.MakeMetric(pa, "hello-00001-private", config)
	newWindow := func(length time.Duration) window {
		if metric.AggregationAlgorithm() == autoscaling.MetricAggregationAlgorithmWeightedExponential {
			return aggregation.NewWeightedFloat64Buckets(length, asconfig.BucketSize)
		}
		return aggregation.NewTimedFloat64Buckets(length, asconfig.BucketSize)
	}
	seen := &demand{stable: newWindow(metric.Spec.StableWindow), panic: newWindow(metric.Spec.PanicWindow)}
	running := &pods{ready: []int{0, 0, 2, 3, 12}[random.Intn(5)]}

	// An autoscaler that meets pods panics from the real time on.
	start := time.Now().Truncate(time.Second)
	scaler := scaling.New(context.Background(), "default", "hello-00001", seen, running, &spec)
	t.Start = start.Unix()

	now, silent := start, time.Duration(0)
	steady, left, quiet := 0.0, 0, false
	for range samples {
		if left == 0 {
			steady, left, quiet = value(random), 1+random.Intn(25), random.Intn(3) == 0
			if quiet && random.Intn(2) == 0 {
				left += 30
			}
		}
		left--
		sample := steady
		if quiet {
			sample = 0
		} else if random.Intn(2) == 0 {
			sample = value(random)
		}
		seen.stable.Record(now, sample)
		seen.panic.Record(now, sample)
		result := scaler.Scale(zap.NewNop().Sugar(), now)
		t.Second = append(t.Second, int64(now.Sub(start)/time.Second))
		t.Ready = append(t.Ready, running.ready)
		t.Demand = append(t.Demand, sample)
		t.Stable = append(t.Stable, seen.stableValue)
		t.Panic = append(t.Panic, seen.panicked)
		t.Want = append(t.Want, result.DesiredPodCount)
		t.Excess = append(t.Excess, result.ExcessBurstCapacity)

		switch random.Intn(16) {
		case 0:
			running.ready = random.Intn(30)
		case 1, 2, 3, 4, 5, 6, 7, 8:
			running.ready = int(result.DesiredPodCount)
		}
		now, silent = now.Add(time.Second), silent+time.Second
		if sample != 0 {
			silent = 0
		}
		// Without pods and requests nobody reports.
		if result.DesiredPodCount == 0 && silent >= metric.Spec.StableWindow && random.Intn(3) == 0 {
			running.ready, left = 0, 0
			now = now.Add(time.Duration(1+random.Intn(40)) * time.Second)
		}
	}
	return t
}

// value is some demand, often a multiple of a common target.
func value(random *rand.Rand) float64 {
	switch random.Intn(6) {
	case 0:
		return 0
	case 1:
		return float64(random.Intn(40))
	case 2:
		return float64(random.Intn(20)) * 7
	case 3:
		return float64(random.Intn(100)) * 0.1
	case 4:
		return float64(random.Intn(100000)) / 1000
	default:
		return float64(random.Intn(3000))
	}
}

func settings(random *rand.Rand) trace {
	pick := func(texts ...string) string { return texts[random.Intn(len(texts))] }
	own, cluster := map[string]string{}, map[string]string{}
	maybe := func(texts map[string]string, key string, choice ...string) {
		if random.Intn(2) == 0 {
			texts[key] = pick(choice...)
		}
	}
	own[prefix+"metric"] = pick("concurrency", "concurrency", "rps")
	own[prefix+"window"] = pick("6s", "7s", "12s", "20s", "30s", "31s", "0.5m")
	maybe(own, prefix+"metric-aggregation-algorithm", "linear", "weighted-exponential", "weightedExponential")
	maybe(own, prefix+"target", "1", "10", "7.5", "100", "1e1", "0.5")
	maybe(own, prefix+"target-utilization-percentage", "70", "100", "85.5", "1")
	maybe(own, prefix+"panic-window-percentage", "10", "25", "50", "100", "33.3")
	maybe(own, prefix+"panicThresholdPercentage", "110", "200", "150.5", "400")
	maybe(own, prefix+"activation-scale", "2", "4")
	// Without any the class here has another default than stock.
	if random.Intn(2) == 0 {
		own[prefix+"target-burst-capacity"] = pick("-1", "0", "10", "33.3")
	} else {
		cluster["target-burst-capacity"] = pick("0", "-1", "50")
	}
	reachable := random.Intn(5) > 0
	// Later releases delay reachable revisions only, and so does the class here.
	if reachable {
		maybe(own, prefix+"scale-down-delay", "0s", "5s", "10s", "1m")
	}
	maybe(cluster, "container-concurrency-target-percentage", "0.5", "80", "1", "100")
	maybe(cluster, "container-concurrency-target-default", "50", "33.3")
	maybe(cluster, "requests-per-second-target-default", "20", "150")
	maybe(cluster, "panic-window-percentage", "20", "5.5")
	maybe(cluster, "panic-threshold-percentage", "300", "120")
	maybe(cluster, "max-scale-up-rate", "1.5", "3", "1000")
	maybe(cluster, "max-scale-down-rate", "1.1", "2", "4")
	return trace{
		Annotations: own, ConfigMap: cluster, Reachable: reachable,
		ContainerConcurrency: []int64{0, 0, 1, 5, 10, 50}[random.Intn(6)],
	}
}

// limits is one revision's settings of its bounds, and what its reconciler reads from them.
type limits struct {
	Annotations map[string]string `json:"annotations"`
	ConfigMap   map[string]string `json:"config_map"`
	Reachable   bool              `json:"reachable"`
	Least       int32             `json:"least"`
	// Most is 0 where there is no bound.
	Most    int32 `json:"most"`
	Initial int32 `json:"initial"`
}

// bounds draws settings until the webhook accepts some.
func bounds(random *rand.Rand) limits {
	for {
		own, cluster := map[string]string{}, map[string]string{}
		maybe := func(texts map[string]string, key string, choice ...string) {
			if random.Intn(2) == 0 {
				texts[key] = choice[random.Intn(len(choice))]
			}
		}
		maybe(own, prefix+[]string{"min-scale", "minScale"}[random.Intn(2)], "0", "1", "2", "5", "12")
		maybe(own, prefix+[]string{"max-scale", "maxScale"}[random.Intn(2)], "0", "1", "3", "7", "12", "30")
		maybe(own, prefix+[]string{"initial-scale", "initialScale"}[random.Intn(2)], "0", "1", "2", "6")
		maybe(cluster, "min-scale", "0", "1", "4")
		maybe(cluster, "max-scale", "0", "2", "9")
		maybe(cluster, "max-scale-limit", "0", "9", "40")
		maybe(cluster, "initial-scale", "0", "1", "3")
		maybe(cluster, "allow-zero-initial-scale", "true", "false")
		config, err := asconfig.NewConfigFromMap(cluster)
		if err != nil || autoscaling.ValidateAnnotations(context.Background(), config, own) != nil {
			continue
		}
		pa := &v1alpha1.PodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hello-00001", Annotations: own}}
		drawn := limits{Annotations: own, ConfigMap: cluster, Reachable: random.Intn(4) > 0}
		if !drawn.Reachable {
			pa.Spec.Reachability = v1alpha1.ReachabilityUnreachable
		}
		drawn.Least, drawn.Most = pa.ScaleBounds(config)
		drawn.Initial = kparesources.GetInitialScale(config, pa)
		return drawn
	}
}

// rule is which values a key may have.
type rule struct {
	Map      string   `json:"map"`
	Key      string   `json:"key"`
	Accepted []string `json:"accepted"`
	Refused  []string `json:"refused"`
}

var values = []string{
	"", "0", "1", "-1", "-2", "+3", "05", "0.5", "1.0", "1.01", "2", ".5", "5.", "1e3", "1E2", "100", "101", "109.9", "110", "1000", "1001",
	"0x10", "0x1p4", "1_000", "1__0", " 5", "5 ", "2147483647", "2147483648", "abc", "0.01", "0.001", "0.015",
	"0s", "-0s", "1s", "6s", "5999ms", "6.5s", "60m", "1h", "1h0m1s", "-1s", "1m30s", "90", "1.5m", ".5m", "1.5s", "1us", "1d", "s", "1e3s",
	"500ms", "t", "T", "true", "True", "TRUE", "tRUE", "f", "F", "false", "False", "FALSE", "fALSE", "yes", "on",
	"linear", "weighted-exponential", "weightedExponential", "Linear", "concurrency", "rps", "RPS", "cpu", "memory", "custom",
}

func answers(out *json.Encoder) {
	ask := func(kind, key string, refuses func(map[string]string) bool) {
		answer := rule{Map: kind, Key: key, Accepted: []string{}, Refused: []string{}}
		for _, value := range values {
			if refuses(map[string]string{key: value}) {
				answer.Refused = append(answer.Refused, value)
			} else {
				answer.Accepted = append(answer.Accepted, value)
			}
		}
		encode(out, answer)
	}
	for _, key := range []string{
		"enable-scale-to-zero", "allow-zero-initial-scale", "max-scale-up-rate", "max-scale-down-rate", "container-concurrency-target-percentage",
		"container-concurrency-target-default", "requests-per-second-target-default", "target-burst-capacity", "panic-window-percentage",
		"activator-capacity", "panic-threshold-percentage", "initial-scale", "min-scale", "max-scale", "max-scale-limit", "stable-window",
		"scale-down-delay", "scale-to-zero-grace-period", "scale-to-zero-pod-retention-period", "unknown-key",
	} {
		ask("config-autoscaler", key, func(data map[string]string) bool {
			_, err := asconfig.NewConfigFromMap(data)
			return err != nil
		})
	}
	config, err := asconfig.NewConfigFromMap(nil)
	if err != nil {
		log.Fatalf("failed to read an empty map: %v", err)
	}
	for _, name := range []string{
		"metric", "metric-aggregation-algorithm", "metricAggregationAlgorithm", "target", "target-utilization-percentage",
		"targetUtilizationPercentage", "window", "panic-window-percentage", "panicWindowPercentage", "panic-threshold-percentage",
		"panicThresholdPercentage", "target-burst-capacity", "targetBurstCapacity", "scale-down-delay", "scaleDownDelay",
		"scale-to-zero-pod-retention-period", "scaleToZeroPodRetentionPeriod", "initial-scale", "initialScale", "min-scale", "minScale",
		"max-scale", "maxScale", "activation-scale", "activationScale", "unknown",
	} {
		ask("annotations", prefix+name, func(data map[string]string) bool {
			data[prefix+"class"] = autoscaling.KPA
			return autoscaling.ValidateAnnotations(context.Background(), config, data) != nil
		})
	}
}
