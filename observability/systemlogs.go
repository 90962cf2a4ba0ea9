package observability

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/tracegate/tracegate/observability/store"
)

// systemLogs has an eye on what ClickHouse writes about itself, which by a server's defaults
// grows for ever. It does so again and again, because a server makes a table anew whose
// definition is not that of its configuration, each time it starts.
type systemLogs struct {
	bound func(ctx context.Context, days int) (bounded, endless []store.SystemLog, err error)
	days  int
	log   *slog.Logger
	told  string // which were endless when that was last told
}

// run looks every so often until ctx is done.
func (l *systemLogs) run(ctx context.Context, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		l.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *systemLogs) look(ctx context.Context) {
	bounded, endless, err := l.bound(ctx, l.days)
	if len(bounded) > 0 {
		names, _ := sum(bounded)
		l.log.Info("clickhouse keeps what it writes about itself for some days from now on", "tables", names, "days", l.days)
	}
	if err != nil && len(endless) == 0 {
		return // nothing was seen
	}
	names, bytes := sum(endless)
	now := strings.Join(names, " ")
	if now != "" && now != l.told {
		l.log.Warn("clickhouse keeps what it writes about itself for ever: put observability/store/system_logs.xml into its config.d, or set clickhouse.system_log_days", "tables", names, "bytes", bytes, "error", err)
	}
	l.told = now
}

func sum(logs []store.SystemLog) (names []string, bytes uint64) {
	for _, l := range logs {
		names, bytes = append(names, "system."+l.Name), bytes+l.Bytes
	}
	return names, bytes
}
