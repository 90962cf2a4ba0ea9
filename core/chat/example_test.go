package chat_test

import (
	"fmt"

	"github.com/tracegate/tracegate/core/chat"
)

// A push that comes too early is not shown: the gap is read from the store first.
func ExamplePositions() {
	p := chat.Positions{{Conversation: "lunch", Seq: 3}}
	for _, seq := range []int64{4, 4, 6} {
		switch p.Next("lunch", seq) {
		case chat.Deliver:
			fmt.Println(seq, "is pushed")
		case chat.Drop:
			fmt.Println(seq, "was pushed before")
		case chat.Gap:
			fmt.Println(seq, "waits: read the store after", p.At("lunch"))
		}
	}
	// Output:
	// 4 is pushed
	// 4 was pushed before
	// 6 waits: read the store after 4
}
