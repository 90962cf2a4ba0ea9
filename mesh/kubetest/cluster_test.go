package kubetest_test

import (
	"context"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/tracegate/tracegate/mesh/kubetest"
)

// TestDeploymentBecomesReadyAndSurvivesTheAPIServer needs every component: the
// controller manager makes pods, the scheduler places them, kwok makes them ready,
// etcd keeps them while the API server is killed.
func TestDeploymentBecomesReadyAndSurvivesTheAPIServer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Kubernetes")
	}
	c := kubetest.New(t, kubetest.Config{Controllers: true, Nodes: 2})
	client, err := kubernetes.NewForConfig(c.Admin())
	if err != nil {
		t.Fatal(err)
	}
	labels, replicas := map[string]string{"app": "web"}, int32(3)
	start := time.Now()
	_, err = client.AppsV1().Deployments("default").Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "example.org/web:1"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ready := func() int32 {
		d, err := client.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return d.Status.ReadyReplicas
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ready() != replicas {
		select {
		case <-ctx.Done():
			t.Fatalf("%d of %d pods are ready", ready(), replicas)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Log("3 pods ready after", time.Since(start))

	c.StopAPIServer()
	if _, err := client.AppsV1().Deployments("default").Get(t.Context(), "web", metav1.GetOptions{}); err == nil {
		t.Fatal("the API server answers after it was killed")
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := ready(); n != replicas {
		t.Errorf("%d pods ready after a restart, want %d", n, replicas)
	}
}
