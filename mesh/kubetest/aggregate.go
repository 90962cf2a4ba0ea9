package kubetest

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Aggregate makes the API server ask a server on this machine for an API group. Its
// certificate is one of [Cluster.Sign] for the name NAME.default.svc.
func (c *Cluster) Aggregate(ctx context.Context, cl client.Client, name string, group schema.GroupVersion, addr net.Addr) error {
	_, text, err := net.SplitHostPort(addr.String())
	if err != nil {
		return err
	}
	port, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return err
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		// Pods have no network here, so the Service leads out of the cluster.
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost", Ports: []corev1.ServicePort{{Port: int32(port)}}},
	}
	if err := cl.Create(ctx, service); err != nil {
		return fmt.Errorf("make service %s: %w", name, err)
	}
	registration := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{
		"group": group.Group, "version": group.Version, "groupPriorityMinimum": int64(100), "versionPriority": int64(100),
		"caBundle": base64.StdEncoding.EncodeToString(c.CA()), "service": map[string]any{"name": name, "namespace": "default", "port": port},
	}}}
	registration.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService"})
	registration.SetName(group.Version + "." + group.Group)
	if err := cl.Create(ctx, registration); err != nil {
		return fmt.Errorf("register %s: %w", group, err)
	}
	return nil
}
