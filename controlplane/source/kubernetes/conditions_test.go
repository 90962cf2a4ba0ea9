package kubernetes

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tracegate/tracegate/controlplane/source"
)

func TestConditions(t *testing.T) {
	r := resource{kind: "Route", name: "r", rule: "core/r", says: "rule r of service core"}
	for _, tt := range []struct {
		name    string
		refused error
		inForce bool
		fate    source.Fate
		want    string // Ready, Accepted, Programmed, Progressing, Stalled
		message string // of Programmed
	}{
		{
			name: "edges are asked", message: "not every edge has it yet",
			want: "False/Waiting True/Used False/Waiting True/Waiting False/AsExpected",
		},
		{
			name: "every edge has it", inForce: true, message: "rule r of service core",
			want: "True/InForce True/Used True/InForce False/AsExpected False/AsExpected",
		},
		{
			name: "the policy refuses it", refused: errors.New("pool: unknown"), message: "pool: unknown",
			want: "False/Refused False/Refused False/Refused False/AsExpected True/Refused",
		},
		{
			name: "it is another's", refused: &conflictError{"0a1b2c", `TrafficGroup "shop"`}, message: `group 0a1b2c is that of TrafficGroup "shop" already`,
			want: "False/Conflicted False/Conflicted False/Conflicted False/AsExpected True/Conflicted",
		},
		{
			name: "edges refuse this rule", inForce: true, fate: source.Fate{Held: map[string]string{"core/r": "bad regex"}}, message: "bad regex",
			want: "False/RefusedByEdges True/Used False/RefusedByEdges False/AsExpected True/RefusedByEdges",
		},
		{
			name: "edges refuse another rule", inForce: true, fate: source.Fate{Held: map[string]string{"core/s": "bad regex"}}, message: "rule r",
			want: "True/InForce True/Used True/InForce False/AsExpected False/AsExpected",
		},
		{
			name: "edges refuse all of it", fate: source.Fate{Refused: "edge-1 says no"}, message: "edge-1 says no",
			want: "False/PolicyNotInForce True/Used False/PolicyNotInForce False/AsExpected True/PolicyNotInForce",
		},
		{
			name: "what is in force is another policy that has it too", inForce: true, fate: source.Fate{Refused: "edge-1 says no"}, message: "rule r",
			want: "True/InForce True/Used True/InForce False/AsExpected False/AsExpected",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := []metav1.Condition{{Type: "Ready", Status: metav1.ConditionUnknown}, {Type: "Foreign", Status: metav1.ConditionTrue}}
			got := stand(r, tt.refused, tt.inForce, tt.fate).conditions(before, 7)
			var words []string
			for _, c := range got {
				words = append(words, string(c.Status)+"/"+c.Reason)
				if c.ObservedGeneration != 7 || c.LastTransitionTime.IsZero() {
					t.Errorf("%+v", c)
				}
			}
			if s := strings.Join(words, " "); s != tt.want {
				t.Errorf("%s, want %s", s, tt.want)
			}
			if c := meta.FindStatusCondition(got, "Programmed"); !strings.Contains(c.Message, tt.message) {
				t.Errorf("message %q", c.Message)
			}
		})
	}
}

// TestConditionsKeepTheirTime where they stay as they were.
func TestConditionsKeepTheirTime(t *testing.T) {
	long := metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	before := standing{accepted: true, reason: reasonWaiting}.conditions(nil, 1)
	for i := range before {
		before[i].LastTransitionTime = long
	}
	for _, c := range (standing{accepted: true, programmed: true, reason: reasonInForce}).conditions(before, 2) {
		if kept := c.LastTransitionTime.Equal(&long); kept != (c.Type == "Accepted" || c.Type == "Stalled") {
			t.Errorf("%s: time %s", c.Type, c.LastTransitionTime)
		}
	}
}

// TestInForce follows policies from being sent to what became of them.
func TestInForce(t *testing.T) {
	a, b := resource{kind: "Route", name: "a", uid: "1", generation: 1}, resource{kind: "Route", name: "b", uid: "2", generation: 3}
	first := version{raw: []byte("1"), with: map[string]int64{a.identity(): 1}}
	l := layer{sent: first}
	if l.inForce(a) {
		t.Error("in force before anybody said so")
	}
	if !l.learn(source.Fate{Wanted: []byte("1"), InForce: []byte("1")}) || !l.inForce(a) || l.inForce(b) {
		t.Error("what all edges have is not in force")
	}
	l.sent, l.fate = version{raw: []byte("2"), with: map[string]int64{a.identity(): 1, b.identity(): 3}}, source.Fate{InForce: l.fate.InForce}
	if l.learn(source.Fate{Wanted: []byte("1"), InForce: []byte("1")}) || !l.inForce(a) {
		t.Error("news of an older policy count")
	}
	if l.learn(source.Fate{Wanted: []byte("2"), InForce: []byte("1")}) || !l.inForce(a) || l.inForce(b) {
		t.Error("edges have the old one: a is in force and b is not")
	}
	if !l.learn(source.Fate{Wanted: []byte("2"), InForce: []byte("1"), Refused: "no"}) || !l.inForce(a) || l.inForce(b) {
		t.Error("edges stay with the old one: a is in force and b is not")
	}
	again := a
	again.uid = "3"
	if !l.learn(source.Fate{Wanted: []byte("2"), InForce: []byte("2")}) || !l.inForce(b) || l.inForce(again) {
		t.Error("one that was made again is not the one before")
	}
}
