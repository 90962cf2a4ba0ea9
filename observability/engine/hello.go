package engine

import (
	"fmt"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// helloSQL is what clickhouse-go asks before anything else over HTTP.
const helloSQL = "SELECT displayName(), version(), revision(), timezone()"

// hello is the answer to helloSQL, as a Native block in the client's revision. It
// announces revision 0, so that the client reads every later block as plain FORMAT
// Native, which is what the engine writes.
func hello(version, timezone string, revision uint64) ([]byte, error) {
	b := proto.NewBlock()
	for _, c := range []struct {
		name string
		typ  column.Type
	}{{"displayName()", "String"}, {"version()", "String"}, {"revision()", "UInt32"}, {"timezone()", "String"}} {
		if err := b.AddColumn(c.name, c.typ); err != nil {
			return nil, fmt.Errorf("encode hello: %w", err)
		}
	}
	if err := b.Append("tracegate", version, uint32(0), timezone); err != nil {
		return nil, fmt.Errorf("encode hello: %w", err)
	}
	var buf chproto.Buffer
	if err := b.Encode(&buf, revision); err != nil {
		return nil, fmt.Errorf("encode hello: %w", err)
	}
	return buf.Buf, nil
}
