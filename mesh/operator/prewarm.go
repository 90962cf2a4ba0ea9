package operator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/tracegate/tracegate/mesh/api/v1alpha1"
	"github.com/tracegate/tracegate/mesh/forecast"
	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/mesh/operator/render"
	"github.com/tracegate/tracegate/mesh/scale"
	"github.com/tracegate/tracegate/observability/sli"
)

// Rate is requests a second of a pool, of one group where it is not empty. An error
// means that nobody knows.
type Rate func(service, pool string, of group.ID) (qps float64, err error)

// The reasons of a ScalingPolicy's conditions.
const (
	ReasonWatching     = "Watching"
	ReasonRaised       = "Raised"
	ReasonNoStatistics = "NoStatistics"
	ReasonNoGroup      = "NoTrafficGroup"
	ReasonNoTarget     = "NoTarget"
	ReasonEnded        = "Ended"
)

// lookEvery is how often a policy looks at its group where nothing new is measured.
const lookEvery = scale.Step

// policies raises floors: for each ScalingPolicy it looks at the rate whenever there are
// new statistics, and once a second, forecasts it, and notes in the policy's status how many pods the pool gets at least,
// and until when. The service's own look (services) then raises minReplicas of its
// autoscaler, so that one owner writes it; what is not renewed ends by itself.
type policies struct {
	client   client.Client
	rate     Rate // nil: there are no statistics
	paths    Path // nil: there are no traces
	recorder recorder
	now      func() time.Time

	mu     sync.Mutex
	models map[types.NamespacedName]*memory
}

// memory is what was learned for a policy.
type memory struct {
	model    *forecast.Model
	of       string // what the model is of
	observed time.Time
	raised   time.Time

	hops  []sli.Hop // of the call path, and when it was asked for
	asked time.Time
}

// Reconcile looks once.
func (p *policies) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var sp v1alpha1.ScalingPolicy
	if err := p.client.Get(ctx, req.NamespacedName, &sp); err != nil {
		p.forget(req.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	m, now := p.memory(req.NamespacedName, &sp), p.now()
	saw := p.look(ctx, &sp)
	m.observe(saw.qps, saw.reason == "", now)
	if asked := room(&sp, now); asked > 0 && saw.reason != ReasonNoTarget { // also where nothing is measured: a decision knows
		saw.qps, saw.reason = saw.qps+asked, ""
	}
	var err error
	if saw.reason == "" {
		saw.path, err = p.path(ctx, &sp, saw.of, m, now)
	}
	next, raised := floor(&sp, m, saw, now)
	if raised {
		m.raised = now
	}
	if !equality.Semantic.DeepEqual(sp.Status, next) {
		err = errors.Join(err, applyStatus(ctx, p.client, &sp, "ScalingPolicy", next))
		p.recorder.tell(ctx, &sp, "Look", policyNotices(sp.Status, next)...)
	}
	return reconcile.Result{RequeueAfter: lookEvery}, err
}

// sight is what a policy sees when it looks.
type sight struct {
	qps             float64
	of              group.ID // whose; empty: everybody's
	path            []along
	reason, message string // why nothing is seen; empty where something is
}

// room is what a decision is about to bring to the pool, in requests a second.
func room(sp *v1alpha1.ScalingPolicy, now time.Time) float64 {
	until, err := time.Parse(time.RFC3339, sp.Annotations[v1alpha1.AnnotationRoomUntil])
	if err != nil || !now.Before(until) {
		return 0
	}
	n, err := strconv.ParseFloat(sp.Annotations[v1alpha1.AnnotationRoom], 64)
	if err != nil || !(n > 0) || math.IsInf(n, 0) {
		return 0
	}
	return n
}

// observe lets the model learn once a step, however often the policy looks.
func (m *memory) observe(qps float64, known bool, now time.Time) {
	if now.Sub(m.observed) < lookEvery*9/10 {
		return
	}
	m.observed = now
	if known {
		m.model.Observe(qps)
	} else {
		m.model.Miss()
	}
}

// announce makes every policy look at what was measured, until ctx is done.
func announce(ctx context.Context, measured <-chan struct{}, c client.Reader, to chan<- event.GenericEvent) error {
	for {
		select {
		case <-measured:
		case <-ctx.Done():
			return nil
		}
		var all v1alpha1.ScalingPolicyList
		if err := c.List(ctx, &all); err != nil {
			return fmt.Errorf("list scaling policies: %w", err)
		}
		for i := range all.Items {
			select {
			case to <- event.GenericEvent{Object: &all.Items[i]}:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

func (p *policies) memory(key types.NamespacedName, sp *v1alpha1.ScalingPolicy) *memory {
	of := fmt.Sprintf("%s/%s/%s", sp.Spec.Target.Service, sp.Spec.Target.Pool, sp.Spec.TrafficGroup)
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.models[key]
	if m == nil || m.of != of {
		m = &memory{model: forecast.New(forecast.DefaultSmoothing(), 0), of: of}
		p.models[key] = m
	}
	return m
}

func (p *policies) forget(key types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.models, key)
}

// look returns the rate, or why there is none.
func (p *policies) look(ctx context.Context, sp *v1alpha1.ScalingPolicy) (s sight) {
	if why := p.noTarget(ctx, sp); why != "" {
		return sight{reason: ReasonNoTarget, message: why}
	}
	if p.rate == nil {
		return sight{reason: ReasonNoStatistics, message: "the operator has no statistics: configure ClickHouse"}
	}
	if name := sp.Spec.TrafficGroup; name != "" {
		var tg v1alpha1.TrafficGroup
		if err := p.client.Get(ctx, client.ObjectKey{Namespace: sp.Namespace, Name: name}, &tg); err != nil {
			return sight{reason: ReasonNoGroup, message: fmt.Sprintf("TrafficGroup %s: %v", name, err)}
		}
		s.of = GroupID(tg.Spec.Selector)
	}
	var err error
	if s.qps, err = p.rate(sp.Spec.Target.Service, sp.Spec.Target.Pool, s.of); err != nil {
		return sight{reason: ReasonNoStatistics, message: "nothing is raised: " + err.Error()}
	}
	return s
}

// noTarget is why the target cannot be raised, or nothing.
func (p *policies) noTarget(ctx context.Context, sp *v1alpha1.ScalingPolicy) string {
	var ms v1alpha1.MicroService
	if err := p.client.Get(ctx, client.ObjectKey{Namespace: sp.Namespace, Name: sp.Spec.Target.Service}, &ms); err != nil {
		return fmt.Sprintf("MicroService %s: %v", sp.Spec.Target.Service, err)
	}
	for _, pool := range render.Pools(&ms) {
		switch {
		case pool.Name != sp.Spec.Target.Pool:
		case pool.Autoscaling == nil:
			return fmt.Sprintf("pool %s of %s has no autoscaling, whose lower bound could be raised", pool.Name, ms.Name)
		default:
			return ""
		}
	}
	return fmt.Sprintf("MicroService %s has no pool %q", ms.Name, sp.Spec.Target.Pool)
}

// floor is a pure function of what is known: the policy's next status, and whether that
// raises a floor. Floors are only ever raised, renewed when half their time is over, and
// end together; scaling in is the autoscaler's.
func floor(sp *v1alpha1.ScalingPolicy, m *memory, saw sight, now time.Time) (next v1alpha1.ScalingPolicyStatus, raised bool) {
	next = v1alpha1.ScalingPolicyStatus{ObservedGeneration: sp.Generation, Floor: sp.Status.Floor, Path: sp.Status.Path, Until: sp.Status.Until.DeepCopy()}
	for _, c := range sp.Status.Conditions {
		next.Conditions = append(next.Conditions, *c.DeepCopy())
	}
	if next.Until != nil && !now.Before(next.Until.Time) {
		next.Floor, next.Path, next.Until = 0, nil, nil
	}
	reason, message := saw.reason, saw.message
	if reason == "" {
		hold := time.Duration(sp.Spec.HoldSeconds) * time.Second
		need := Need(sp.Spec, m.model, saw.qps, next.Floor)
		path := next.Path
		if c := sp.Spec.CallPath; c != nil {
			path = pathFloors(saw.path, target(sp.Spec).Expected(m.model, saw.qps), c.Budget, next.Path)
		}
		cooled := m.raised.IsZero() || now.Sub(m.raised) >= time.Duration(sp.Spec.CooldownSeconds)*time.Second
		switch {
		case (need > max(next.Floor, sp.Spec.Bounds.Min) || !slices.Equal(path, next.Path)) && cooled:
			raised = true
		case next.Floor > 0 && need >= next.Floor && next.Until.Sub(now) < hold/2:
			raised = true
		}
		reason, message = ReasonWatching, "the pool has what its group will bring"
		if raised {
			next.Floor, next.Path = max(need, next.Floor), path
			until := metav1.NewTime(now.Add(hold).Truncate(time.Second))
			next.Until = &until
		}
		if next.Floor > 0 {
			reason, message = ReasonRaised, fmt.Sprintf("at least %d pods, and %d other pools on the call path raised", next.Floor, len(next.Path))
		}
	}
	ready, stalled := reason == ReasonWatching || reason == ReasonRaised, reason == ReasonNoGroup || reason == ReasonNoTarget
	set := func(condition string, is bool, reason, message string) {
		c := metav1.Condition{Type: condition, Status: metav1.ConditionFalse, ObservedGeneration: sp.Generation, Reason: reason, Message: clip(message)}
		if is {
			c.Status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&next.Conditions, c)
	}
	set(v1alpha1.ConditionReady, ready, reason, message)
	if stalled {
		set(v1alpha1.ConditionStalled, true, reason, message)
	} else {
		set(v1alpha1.ConditionStalled, false, ReasonAsExpected, "")
	}
	return next, raised
}

// Need is how many pods a policy wants for a rate and what is forecast of it: within
// its bounds, and at most maxStep above the floor it has.
func Need(spec v1alpha1.ScalingPolicySpec, model *forecast.Model, qps float64, has int32) int32 {
	return int32(target(spec).Need(model, qps, int(has)))
}

func target(spec v1alpha1.ScalingPolicySpec) scale.Target {
	t := scale.Target{
		PerInstance: float64(spec.QPSPerPod), Min: int(spec.Bounds.Min), Max: int(spec.Bounds.Max), Lead: time.Duration(spec.LeadSeconds) * time.Second,
	}
	if spec.MaxStep != nil {
		t.MaxStep = int(*spec.MaxStep)
	}
	return t
}

// floors are what policies hold for pools of a service now, and when the first ends.
func floors(list []v1alpha1.ScalingPolicy, service string, now time.Time) (by map[string]int32, ends time.Time) {
	by = map[string]int32{}
	for _, sp := range list {
		if sp.Status.Until == nil || !now.Before(sp.Status.Until.Time) || sp.DeletionTimestamp != nil {
			continue
		}
		target := v1alpha1.PathFloor{Service: sp.Spec.Target.Service, Pool: sp.Spec.Target.Pool, Floor: sp.Status.Floor}
		for _, f := range append([]v1alpha1.PathFloor{target}, sp.Status.Path...) {
			if f.Service != service {
				continue
			}
			by[f.Pool] = max(by[f.Pool], f.Floor)
			if ends.IsZero() || sp.Status.Until.Time.Before(ends) {
				ends = sp.Status.Until.Time
			}
		}
	}
	return by, ends
}
