//go:build e2e

package e2e

// Added to Serving's own end-to-end tests, so that they can judge a class of autoscaler whose pods
// are not those of the revision's Deployment: pods are counted by the revision that they carry.

import (
	"context"
	"fmt"
	"os"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"knative.dev/serving/pkg/apis/serving"
	resourcenames "knative.dev/serving/pkg/reconciler/revision/resources/names"
	"knative.dev/serving/test"
)

// enactedClass is the class that the tests ask for.
var enactedClass = os.Getenv("ENACTED_CLASS")

// stayingPods are the revision's pods that nobody has told to end, which are those that a
// Deployment counts.
func stayingPods(ctx *TestContext) ([]corev1.Pod, error) {
	all, err := ctx.clients.KubeClient.CoreV1().Pods(test.ServingFlags.TestNamespace).List(
		context.Background(), metav1.ListOptions{LabelSelector: serving.RevisionLabelKey + "=" + ctx.resources.Revision.Name})
	if err != nil {
		return nil, fmt.Errorf("failed to list the pods of revision %s: %w", ctx.resources.Revision.Name, err)
	}
	var staying []corev1.Pod
	for _, pod := range all.Items {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if pod.DeletionTimestamp == nil && !ended {
			staying = append(staying, pod)
		}
	}
	return staying, nil
}

func isReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// isOfRevision tells the revision's pods from others, whatever made them.
func isOfRevision(ctx *TestContext, pod *corev1.Pod) bool {
	return pod.Labels[serving.RevisionLabelKey] == ctx.resources.Revision.Name
}

// numberOfReadyPods is what the tests judge the scale by. The Deployment is theirs to print.
func numberOfReadyPods(ctx *TestContext) (float64, *appsv1.Deployment, error) {
	pods, err := stayingPods(ctx)
	if err != nil {
		return 0, nil, err
	}
	ready := 0
	for i := range pods {
		if isReady(&pods[i]) {
			ready++
		}
	}
	name := resourcenames.Deployment(ctx.resources.Revision)
	deployment, err := ctx.clients.KubeClient.AppsV1().Deployments(test.ServingFlags.TestNamespace).Get(
		context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return 0, nil, fmt.Errorf("failed to get deployment %s: %w", name, err)
	}
	return float64(ready), deployment, nil
}

func hasNoReadyPods(ctx *TestContext) (bool, error) {
	ready, _, err := numberOfReadyPods(ctx)
	return err == nil && ready == 0, err
}

// waitForNoPods waits as long for the revision's last pod to be told to end as the tests wait for
// its Deployment to have no replicas.
func waitForNoPods(ctx *TestContext) error {
	config, err := autoscalerCM(ctx.clients)
	if err != nil {
		return fmt.Errorf("failed to get the autoscaler's settings: %w", err)
	}
	return wait.PollUntilContextTimeout(context.Background(), time.Second, 6*config.ScaleToZeroGracePeriod, true,
		func(context.Context) (bool, error) {
			pods, err := stayingPods(ctx)
			return err == nil && len(pods) == 0, err
		})
}
