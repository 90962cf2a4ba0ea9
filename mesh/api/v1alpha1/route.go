package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Route is a rule of the edge for requests to a service. It can say all that a rule of the
// policy can, in the same words (a test holds that): docs/routing.md has an example of
// everything.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=tgroute,categories={tracegate,mesh}
// +kubebuilder:printcolumn:name="Service",type=string,JSONPath=`.spec.service`
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Route struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the rule; its name is NAMESPACE/NAME of the resource.
	Spec RouteSpec `json:"spec"`
	// status says whether the control plane uses it.
	// +optional
	Status RouteStatus `json:"status,omitempty"`
}

// RouteSpec is one rule. Which pool serves is decided by group and cohort, unless the
// rule pins one.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.redirect) && has(self.directResponse))",message="redirect and directResponse exclude each other"
// +kubebuilder:validation:XValidation:rule="!(has(self.pool) && has(self.canary))",message="pool and canary exclude each other: a pinned pool leaves nothing to split"
// +kubebuilder:validation:XValidation:rule="has(self.pool) || !has(self.until)",message="until says when a pin ends, and needs pool"
type RouteSpec struct {
	// service that serves; one of the policy's.
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`
	Service string `json:"service"`
	// match: any of them.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Match []RouteMatch `json:"match"`
	// pool that is pinned.
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`
	Pool string `json:"pool,omitempty"`
	// until when the pool is pinned; for good where it is not set.
	// +optional
	Until *metav1.Time `json:"until,omitempty"`
	// canary splits what baseline would serve.
	// +optional
	Canary *Canary `json:"canary,omitempty"`
	// mirror sends a copy to a pool and drops its responses.
	// +optional
	Mirror *Mirror `json:"mirror,omitempty"`
	// redirect instead of serving.
	// +optional
	Redirect *Redirect `json:"redirect,omitempty"`
	// directResponse instead of serving.
	// +optional
	DirectResponse *DirectResponse `json:"directResponse,omitempty"`
	// rewrite changes what the service sees.
	// +optional
	Rewrite *Rewrite `json:"rewrite,omitempty"`
	// websocket lets connections be upgraded.
	// +optional
	WebSocket bool `json:"websocket,omitempty"`
	// grpc: calls may stream, and a client's grpc-timeout ends them.
	// +optional
	GRPC bool `json:"grpc,omitempty"`
	// timeout of the whole response, e.g. 5s.
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// idleTimeout without a byte either way.
	// +optional
	IdleTimeout *metav1.Duration `json:"idleTimeout,omitempty"`
	// retries replace those of the edge.
	// +optional
	Retries *Retries `json:"retries,omitempty"`
	// requestHeaders that the service gets in another way.
	// +optional
	RequestHeaders *HeaderChanges `json:"requestHeaders,omitempty"`
	// responseHeaders that the client gets in another way.
	// +optional
	ResponseHeaders *HeaderChanges `json:"responseHeaders,omitempty"`
	// cors lets browsers of other origins in.
	// +optional
	CORS *CORS `json:"cors,omitempty"`
	// rateLimit of each edge.
	// +optional
	RateLimit *RateLimit `json:"rateLimit,omitempty"`
	// limits that all edges count together; names of the policy's.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	Limits []string `json:"limits,omitempty"`
	// jwt says who may ask, by tokens of identity providers.
	// +optional
	JWT *RouteJWT `json:"jwt,omitempty"`
	// addresses that may ask.
	// +optional
	Addresses *Addresses `json:"addresses,omitempty"`
	// fault breaks requests on purpose.
	// +optional
	Fault *Fault `json:"fault,omitempty"`
	// maxRequestBytes: larger bodies get 413.
	// +optional
	// +kubebuilder:validation:Minimum=1
	MaxRequestBytes *int64 `json:"maxRequestBytes,omitempty"`
}

// RouteMatch holds where everything in it holds.
//
// +kubebuilder:validation:XValidation:rule="[has(self.path), has(self.prefix), has(self.regex)].filter(x, x).size() <= 1",message="a match must have at most one of path, prefix and regex"
type RouteMatch struct {
	// hosts: any of them, exact or *.suffix.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	Hosts []string `json:"hosts,omitempty"`
	// path, exact.
	// +optional
	// +kubebuilder:validation:Pattern=`^/[^?#\s]*$`
	Path string `json:"path,omitempty"`
	// prefix, on path segments.
	// +optional
	// +kubebuilder:validation:Pattern=`^/[^?#\s]*$`
	Prefix string `json:"prefix,omitempty"`
	// regex (RE2) of the whole path.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Regex string `json:"regex,omitempty"`
	// methods: any of them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=9
	Methods []string `json:"methods,omitempty"`
	// headers: all of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Headers []HeaderMatch `json:"headers,omitempty"`
	// cookies: all of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Cookies []CookieMatch `json:"cookies,omitempty"`
	// query parameters: all of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Query []QueryMatch `json:"query,omitempty"`
	// tenant that the edge has found.
	// +optional
	// +kubebuilder:validation:Pattern=`^[a-z0-9_.-]{1,64}$`
	Tenant string `json:"tenant,omitempty"`
	// cohort that the edge has found: a Cohort, or one of the policy's.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Cohort string `json:"cohort,omitempty"`
}

// HeaderMatch is one condition.
//
// +kubebuilder:validation:XValidation:rule="[has(self.exact), has(self.prefix), has(self.present) && self.present].filter(x, x).size() == 1",message="a header must have exactly one of exact, prefix and present"
type HeaderMatch struct {
	// name of the header.
	// +kubebuilder:validation:Pattern=`^[a-z0-9!#$&'*+.^_|~-]+$`
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`
	// exact value.
	// +optional
	Exact string `json:"exact,omitempty"`
	// prefix of the value.
	// +optional
	Prefix string `json:"prefix,omitempty"`
	// present with whatever value.
	// +optional
	Present bool `json:"present,omitempty"`
	// not turns the condition round.
	// +optional
	Not bool `json:"not,omitempty"`
}

// CookieMatch is one condition.
//
// +kubebuilder:validation:XValidation:rule="[has(self.exact), has(self.prefix), has(self.present) && self.present].filter(x, x).size() == 1",message="a cookie must have exactly one of exact, prefix and present"
type CookieMatch struct {
	// name of the cookie.
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_.-]{1,64}$`
	Name string `json:"name"`
	// exact value.
	// +optional
	Exact string `json:"exact,omitempty"`
	// prefix of the value.
	// +optional
	Prefix string `json:"prefix,omitempty"`
	// present with whatever value.
	// +optional
	Present bool `json:"present,omitempty"`
	// not turns the condition round.
	// +optional
	Not bool `json:"not,omitempty"`
}

// QueryMatch is one condition.
//
// +kubebuilder:validation:XValidation:rule="[has(self.exact), has(self.prefix), has(self.present) && self.present].filter(x, x).size() == 1",message="a query parameter must have exactly one of exact, prefix and present"
type QueryMatch struct {
	// name of the parameter.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`
	// exact value.
	// +optional
	Exact string `json:"exact,omitempty"`
	// prefix of the value.
	// +optional
	Prefix string `json:"prefix,omitempty"`
	// present with whatever value.
	// +optional
	Present bool `json:"present,omitempty"`
}

// RouteJWT says who may ask: who has a token that one of the policy's identity providers
// verifies.
type RouteJWT struct {
	// require a token of one of these; names of the policy's jwt, or session, the product's
	// own.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Require []string `json:"require"`
	// allowMissing lets requests without a token in, and none with a bad one.
	// +optional
	AllowMissing bool `json:"allowMissing,omitempty"`
}

// Canary serves a share of users from other pools, the same users always.
//
// +kubebuilder:validation:XValidation:rule="has(self.cookie) != has(self.header)",message="canary must have exactly one of cookie and header"
type Canary struct {
	// cookie that a user is known by.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Cookie string `json:"cookie,omitempty"`
	// header that a user is known by.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Header string `json:"header,omitempty"`
	// pools, one or two, without baseline.
	// +listType=map
	// +listMapKey=pool
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Pools []CanaryPool `json:"pools"`
}

// CanaryPool is a share of users.
type CanaryPool struct {
	// pool that serves them.
	// +kubebuilder:validation:XValidation:rule="self != 'baseline'",message="baseline serves whoever is left"
	Pool string `json:"pool"`
	// percent of users, e.g. 5, or 500m for half a percent.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0 && quantity(string(self)).compareTo(quantity('100')) <= 0",message="percent must be between 0 and 100"
	Percent resource.Quantity `json:"percent"`
}

// Mirror is a share of requests that is copied.
type Mirror struct {
	// pool that gets the copies.
	Pool string `json:"pool"`
	// percent of requests, e.g. 5, or 500m for half a percent.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0 && quantity(string(self)).compareTo(quantity('100')) <= 0",message="percent must be between 0 and 100"
	Percent resource.Quantity `json:"percent"`
}

// Redirect answers with another place. What is not set stays as it was asked for.
type Redirect struct {
	// https instead of http.
	// +optional
	HTTPS bool `json:"https,omitempty"`
	// host instead.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host,omitempty"`
	// path instead.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Path string `json:"path,omitempty"`
	// status of the answer.
	// +optional
	// +kubebuilder:default=302
	// +kubebuilder:validation:Enum=301;302;303;307;308
	Status int32 `json:"status,omitempty"`
	// stripQuery leaves the query out.
	// +optional
	StripQuery bool `json:"stripQuery,omitempty"`
}

// Rewrite changes what the service sees.
//
// +kubebuilder:validation:XValidation:rule="has(self.path) || has(self.host)",message="rewrite must have path or host"
type Rewrite struct {
	// path instead of what each match names: its whole path, its prefix, or, with \1 and
	// so on for what was captured, what its regex matched.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Path string `json:"path,omitempty"`
	// host instead.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Host string `json:"host,omitempty"`
}

// DirectResponse answers at the edge.
type DirectResponse struct {
	// status of the answer.
	// +kubebuilder:validation:Minimum=200
	// +kubebuilder:validation:Maximum=599
	Status int32 `json:"status"`
	// body of the answer.
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	Body string `json:"body,omitempty"`
}

// Retries after the first attempt.
type Retries struct {
	// attempts after the first.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Attempts int32 `json:"attempts"`
	// perTryTimeout of each, e.g. 1s.
	// +optional
	PerTryTimeout *metav1.Duration `json:"perTryTimeout,omitempty"`
	// retryOn these conditions, in Envoy's words. (The policy file says on, which YAML
	// as kubectl reads it takes for true.)
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	RetryOn []string `json:"retryOn"`
	// statusCodes for the condition retriable-status-codes.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=400
	// +kubebuilder:validation:items:Maximum=599
	StatusCodes []int32 `json:"statusCodes,omitempty"`
}

// HeaderChanges never name what the edge itself writes.
//
// +kubebuilder:validation:XValidation:rule="has(self.set) || has(self.add) || has(self.remove)",message="a change of headers must have one of set, add and remove"
type HeaderChanges struct {
	// set replaces.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Set map[string]string `json:"set,omitempty"`
	// add one more.
	// +optional
	// +kubebuilder:validation:MaxProperties=32
	Add map[string]string `json:"add,omitempty"`
	// remove them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	Remove []string `json:"remove,omitempty"`
}

// CORS lets browsers of other origins in, and answers their preflight requests.
type CORS struct {
	// origins: https://host, https://*.suffix, or * for any.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Origins []string `json:"origins"`
	// methods that are allowed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	Methods []string `json:"methods,omitempty"`
	// headers that are allowed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	Headers []string `json:"headers,omitempty"`
	// exposeHeaders to scripts.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	ExposeHeaders []string `json:"exposeHeaders,omitempty"`
	// maxAge of what a browser remembers, e.g. 1h.
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
	// credentials may be sent.
	// +optional
	Credentials bool `json:"credentials,omitempty"`
}

// Addresses says by address who may ask; others get 403.
//
// +kubebuilder:validation:XValidation:rule="has(self.allow) || has(self.deny)",message="addresses must have allow or deny"
type Addresses struct {
	// allow these addresses and CIDRs; everybody where it is not set.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=500
	Allow []string `json:"allow,omitempty"`
	// deny these; wins over allow.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=500
	Deny []string `json:"deny,omitempty"`
}

// Fault breaks requests on purpose.
//
// +kubebuilder:validation:XValidation:rule="has(self.delay) || has(self.abort)",message="fault must have delay or abort"
type Fault struct {
	// delay holds a share of requests back.
	// +optional
	Delay *FaultDelay `json:"delay,omitempty"`
	// abort answers a share of requests with an error.
	// +optional
	Abort *FaultAbort `json:"abort,omitempty"`
}

// FaultDelay holds a share of requests back.
type FaultDelay struct {
	// percent of requests, e.g. 5, or 500m for half a percent.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0 && quantity(string(self)).compareTo(quantity('100')) <= 0",message="percent must be between 0 and 100"
	Percent resource.Quantity `json:"percent"`
	// duration, e.g. 2s; a minute at most.
	Duration metav1.Duration `json:"duration"`
}

// FaultAbort answers a share of requests with an error.
type FaultAbort struct {
	// percent of requests, e.g. 5, or 500m for half a percent.
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0 && quantity(string(self)).compareTo(quantity('100')) <= 0",message="percent must be between 0 and 100"
	Percent resource.Quantity `json:"percent"`
	// status of the answer.
	// +kubebuilder:validation:Minimum=400
	// +kubebuilder:validation:Maximum=599
	Status int32 `json:"status"`
}

// RateLimit is a token bucket of each edge.
type RateLimit struct {
	// requestsPerSecond that are let through.
	// +kubebuilder:validation:Minimum=1
	RequestsPerSecond int64 `json:"requestsPerSecond"`
	// burst at one time; requestsPerSecond where it is not set.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Burst *int64 `json:"burst,omitempty"`
}

// RouteStatus says whether the control plane uses the rule.
type RouteStatus struct {
	// observedGeneration is the generation that all of the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Ready, Accepted, Programmed, Progressing, Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// RouteList is several.
//
// +kubebuilder:object:root=true
type RouteList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Route `json:"items"`
}
