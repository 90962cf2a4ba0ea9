package metricsapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func objectOf(namespace, service string) corev1.ObjectReference {
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: namespace, Name: service}
}

// TLS lets in nobody but the cluster's API server, which has authenticated and
// authorized whom it asks for: callers must show the front proxy's certificate, as the
// ConfigMap kube-system/extension-apiserver-authentication says. The server's own
// certificate is read again when its file has changed.
func TLS(ctx context.Context, cluster *rest.Config, certFile, keyFile string) (*tls.Config, error) {
	client, err := kubernetes.NewForConfig(cluster)
	if err != nil {
		return nil, fmt.Errorf("reach cluster: %w", err)
	}
	const name = "extension-apiserver-authentication"
	front, err := client.CoreV1().ConfigMaps("kube-system").Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("learn who the API server is: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(front.Data["requestheader-client-ca-file"])) {
		return nil, fmt.Errorf("learn who the API server is: %s names no certificate authority", name)
	}
	var allowed []string
	if err := json.Unmarshal([]byte(front.Data["requestheader-allowed-names"]), &allowed); err != nil {
		return nil, fmt.Errorf("learn who the API server is: names in %s: %w", name, err)
	}
	files := &certificate{cert: certFile, key: keyFile}
	if _, err := files.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: files.get,
		ClientAuth:     tls.RequireAndVerifyClientCert, ClientCAs: pool,
		VerifyConnection: func(s tls.ConnectionState) error {
			if who := s.PeerCertificates[0].Subject.CommonName; len(allowed) > 0 && !slices.Contains(allowed, who) {
				return errors.New("only the API server may ask")
			}
			return nil
		},
	}, nil
}

// certificate is a pair of files.
type certificate struct {
	cert, key string

	mu      sync.Mutex
	read    *tls.Certificate
	changed time.Time
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.cert)
	if err == nil && c.read != nil && info.ModTime().Equal(c.changed) {
		return c.read, nil
	}
	pair, loadErr := tls.LoadX509KeyPair(c.cert, c.key)
	switch {
	case err == nil && loadErr == nil:
		c.read, c.changed = &pair, info.ModTime()
	case c.read == nil:
		return nil, fmt.Errorf("read certificate: %w", errors.Join(err, loadErr))
	}
	return c.read, nil // while the files are being replaced the last pair serves
}
