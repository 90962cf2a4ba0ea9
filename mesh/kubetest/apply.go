package kubetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Documents are the resources of YAML documents.
func Documents(data []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		u := &unstructured.Unstructured{}
		switch err := decoder.Decode(u); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("read document %d: %w", len(out)+1, err)
		}
		if len(u.Object) > 0 {
			out = append(out, u)
		}
	}
}

// Apply applies all resources as kubectl apply --server-side would; those that live in
// a namespace and name none get this one.
func Apply(ctx context.Context, c client.Client, namespace string, us ...*unstructured.Unstructured) error {
	for _, u := range us {
		namespaced, err := c.IsObjectNamespaced(u)
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", u.GetKind(), u.GetName(), err)
		}
		if u.GetNamespace() == "" && namespaced {
			u.SetNamespace(namespace)
		}
		if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("kubetest"), client.ForceOwnership); err != nil {
			return fmt.Errorf("apply %s %s: %w", u.GetKind(), u.GetName(), err)
		}
	}
	return nil
}

// ApplyFiles applies every file of a file system, and returns when resource
// definitions that are among them are served.
func (c *Cluster) ApplyFiles(ctx context.Context, files fs.FS, pattern, namespace string) error {
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return err
	}
	cl, err := client.New(c.admin, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	names, err := fs.Glob(files, pattern)
	if err != nil || len(names) == 0 {
		return fmt.Errorf("find %s: %d files: %w", pattern, len(names), err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		us, err := Documents(data)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := Apply(ctx, cl, namespace, us...); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, u := range us {
			if u.GetKind() == "CustomResourceDefinition" {
				if err := established(ctx, cl, u.GetName()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// established waits until the API server serves the definition.
func established(ctx context.Context, cl client.Client, name string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var crd apiextensionsv1.CustomResourceDefinition
		if err := cl.Get(ctx, client.ObjectKey{Name: name}, &crd); err != nil {
			return fmt.Errorf("read definition %s: %w", name, err)
		}
		for _, c := range crd.Status.Conditions {
			if c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("definition %s is not served: %w", name, ctx.Err())
		}
	}
}
