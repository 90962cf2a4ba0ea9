package metricsapi

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Mutual lets in whoever shows a certificate that an authority of the file has signed. The
// server's own certificate is read again when its file has changed.
func Mutual(certFile, keyFile, authorities string) (*tls.Config, error) {
	pem, err := os.ReadFile(authorities)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read authorities: %s has no certificate", authorities)
	}
	files := &certificate{cert: certFile, key: keyFile}
	if _, err := files.get(nil); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, GetCertificate: files.get,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}, nil
}
