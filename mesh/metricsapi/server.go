package metricsapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	custom "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"github.com/tracegate/tracegate/mesh/group"
)

// API answers the calls. Who may call is the TLS configuration's to say: see [TLS].
type API struct {
	Last func() Snapshot
	// Group finds the id of a TrafficGroup.
	Group      func(ctx context.Context, namespace, name string) (group.ID, bool)
	StaleAfter time.Duration
	Now        func() time.Time
	Log        *slog.Logger
}

// The selector's keys; render.Metric* are the same.
const (
	keyService = "service"
	keyPool    = "pool"
	keyGroup   = "group"
)

// Handler serves both groups, and what API servers ask for to find them.
func (a API) Handler() http.Handler {
	mux := http.NewServeMux()
	const ext, cus = "/apis/external.metrics.k8s.io", "/apis/custom.metrics.k8s.io"
	mux.HandleFunc("GET "+ext, discoverGroup(external.SchemeGroupVersion.Group, "v1beta1"))
	mux.HandleFunc("GET "+cus, discoverGroup(custom.SchemeGroupVersion.Group, "v1beta2"))
	mux.HandleFunc("GET "+ext+"/v1beta1", discover(external.SchemeGroupVersion.String(), "", "ExternalMetricValueList"))
	mux.HandleFunc("GET "+cus+"/v1beta2", discover(custom.SchemeGroupVersion.String(), "services/", "MetricValueList"))
	mux.HandleFunc("GET "+ext+"/v1beta1/namespaces/{namespace}/{metric}", a.external)
	mux.HandleFunc("GET "+cus+"/v1beta2/namespaces/{namespace}/services/{service}/{metric}", a.custom)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, "nothing is served at "+r.URL.Path)
	})
	return mux
}

func discoverGroup(name, version string) http.HandlerFunc {
	v := metav1.GroupVersionForDiscovery{GroupVersion: name + "/" + version, Version: version}
	return func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, metav1.APIGroup{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIGroup"}, Name: name, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v,
		})
	}
}

func discover(groupVersion, prefix, kind string) http.HandlerFunc {
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "APIResourceList"}, GroupVersion: groupVersion}
	for _, m := range Metrics {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: prefix + m, Namespaced: true, Kind: kind, Verbs: metav1.Verbs{"get"}})
	}
	return func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, list) }
}

func (a API) external(w http.ResponseWriter, r *http.Request) {
	of, match, ok := a.selection(w, r, "labelSelector", "")
	if !ok {
		return
	}
	list := external.ExternalMetricValueList{
		TypeMeta: metav1.TypeMeta{APIVersion: external.SchemeGroupVersion.String(), Kind: "ExternalMetricValueList"},
		Items:    []external.ExternalMetricValue{},
	}
	metric := r.PathValue("metric")
	v, err := a.Last().Value(metric, of, a.Now(), a.StaleAfter)
	switch {
	case errors.Is(err, ErrStale): // an empty list: the autoscaler says that it has no metric
	case err != nil:
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, err.Error())
		return
	default:
		list.Items = append(list.Items, external.ExternalMetricValue{
			MetricName: metric, MetricLabels: match, Timestamp: metav1.NewTime(v.At), Value: *resource.NewMilliQuantity(v.Milli, resource.DecimalSI),
		})
	}
	answer(w, http.StatusOK, list)
}

func (a API) custom(w http.ResponseWriter, r *http.Request) {
	service, metric := r.PathValue("service"), r.PathValue("metric")
	of, _, ok := a.selection(w, r, "metricLabelSelector", service)
	if !ok {
		return
	}
	v, err := a.Last().Value(metric, of, a.Now(), a.StaleAfter)
	if err != nil {
		fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, err.Error())
		return
	}
	answer(w, http.StatusOK, custom.MetricValueList{
		TypeMeta: metav1.TypeMeta{APIVersion: custom.SchemeGroupVersion.String(), Kind: "MetricValueList"},
		Items: []custom.MetricValue{{
			Metric:    custom.MetricIdentifier{Name: metric},
			Timestamp: metav1.NewTime(v.At), Value: *resource.NewMilliQuantity(v.Milli, resource.DecimalSI),
			DescribedObject: objectOf(r.PathValue("namespace"), service),
		}},
	})
}

// selection reads whose requests count, or answers why it cannot.
func (a API) selection(w http.ResponseWriter, r *http.Request, parameter, service string) (of Selection, match map[string]string, ok bool) {
	bad := func(message string) (Selection, map[string]string, bool) {
		fail(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, parameter+": "+message)
		return Selection{}, nil, false
	}
	match, err := labels.ConvertSelectorToLabelsMap(r.URL.Query().Get(parameter))
	if err != nil {
		return bad("only key=value can be selected: " + err.Error())
	}
	of.Service = service
	for key, value := range match {
		switch key {
		case keyService:
			if service != "" && service != value {
				return bad("service is named by the path")
			}
			of.Service = value
		case keyPool:
			of.Pool = value
		case keyGroup:
			id, known := a.Group(r.Context(), r.PathValue("namespace"), value)
			if !known {
				fail(w, http.StatusNotFound, metav1.StatusReasonNotFound, "there is no TrafficGroup "+value+" in the namespace")
				return Selection{}, nil, false
			}
			of.Group = id
		default:
			return bad("unknown key " + key + ": there are service, pool and group")
		}
	}
	if of == (Selection{}) {
		return bad("names none of service, pool and group")
	}
	return of, match, true
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

func fail(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	answer(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
		Code: int32(code), Reason: reason, Message: message,
	})
}
