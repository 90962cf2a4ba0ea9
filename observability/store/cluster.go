package store

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
)

// Cluster says where tables are, if not on one node: each is then a Replicated table on
// every node, called NAME_local, and a Distributed table NAME over those, which all
// questions and inserts use. Views fill local tables from local ones; what a question adds
// up, it adds up over all shards.
type Cluster struct {
	// Name is that of system.clusters, or a macro such as {cluster}; empty: there is one node.
	// Its shards must have internal_replication.
	Name string
	// Path is where a table's replicas meet in Keeper, Replica how one of them is called;
	// both with ClickHouse's macros.
	Path, Replica string
}

// DefaultCluster is without a name: what ClickHouse's own defaults are.
func DefaultCluster() Cluster {
	return Cluster{Path: "/clickhouse/tables/{shard}/{database}/{table}", Replica: "{replica}"}
}

var (
	clusterName = regexp.MustCompile(`^[\w.{}-]+$`)
	keeperName  = regexp.MustCompile(`^[\w./{}:-]+$`)
)

// Validate names the field that is wrong.
func (c Cluster) Validate() error {
	switch {
	case c.Name == "":
		return nil
	case !clusterName.MatchString(c.Name):
		return fmt.Errorf("cluster: %q is not a name of letters, digits, dots, hyphens and macros", c.Name)
	case !strings.HasPrefix(c.Path, "/") || !keeperName.MatchString(c.Path) || !strings.Contains(c.Path, "{table}"):
		return fmt.Errorf("replica_path: %q is not a path in Keeper with {table} in it", c.Path)
	case !keeperName.MatchString(c.Replica):
		return fmt.Errorf("replica: %q is not a name, such as {replica}", c.Replica)
	}
	return nil
}

// settings are those of every statement. All of tracegate's processes write to, and read
// from, the first replica of a shard that is there, as the cluster lists them: another may
// not have yet what was acknowledged, and would look like silence.
func (c Cluster) settings() clickhouse.Settings {
	if c.Name == "" {
		return nil
	}
	return clickhouse.Settings{
		"load_balancing": "in_order", "prefer_localhost_replica": 0,
		"distributed_foreground_insert": 1, // acknowledged means that its shard has it
		"distributed_product_mode":      "global",
		"alter_sync":                    2, "distributed_ddl_task_timeout": 60,
		"insert_deduplicate": 0, // but for inserts of telemetry, which have a token
	}
}

// on is for a statement that every node runs.
func (c Cluster) on() string {
	if c.Name == "" {
		return ""
	}
	return " ON CLUSTER '" + c.Name + "'"
}

// local is the name of the table that has the rows.
func (c Cluster) local(table string) string {
	if c.Name == "" {
		return table
	}
	return table + localSuffix
}

const localSuffix = "_local"

// nameOf is the name that questions use, of a table that has rows.
func (c Cluster) nameOf(table string) string {
	if c.Name == "" {
		return table
	}
	return strings.TrimSuffix(table, localSuffix)
}

// system is a table of what a node knows of itself, of one replica of each shard.
func (c Cluster) system(table string) string {
	if c.Name == "" {
		return "system." + table
	}
	return "cluster('" + c.Name + "', system." + table + ")"
}

// waitForOne is what migrations set for a change of rows that must be done before the next.
const waitForOne = "mutations_sync = 1"

// waitForMutation is that, for all replicas.
func (c Cluster) waitForMutation() string {
	if c.Name == "" {
		return waitForOne
	}
	return "mutations_sync = 2"
}

// migrationsTable is the statement that makes the table of migrations. On a cluster it is
// one table with a replica on every node of every shard.
func (c Cluster) migrationsTable() string {
	if c.Name == "" {
		return createMigrations
	}
	replica := c.Replica
	if strings.Contains(c.Path, "{shard}") {
		replica = "{shard}-" + replica
	}
	engine := fmt.Sprintf("ReplicatedMergeTree('%s', '%s')", strings.ReplaceAll(c.Path, "{shard}", "all"), replica)
	sql := strings.Replace(createMigrations, " schema_migrations ", " schema_migrations"+c.on()+" ", 1)
	return strings.Replace(sql, "MergeTree", engine, 1)
}

// The forms that statements of migrations have; the comment before one is left out.
var (
	comment       = regexp.MustCompile(`\A(--.*(\n|\z)|\n)*`)
	createTable   = regexp.MustCompile(`(?s)\ACREATE TABLE IF NOT EXISTS (\w+)\n(.*)\nENGINE = (\w*MergeTree)(?:\((\w+)\))?\n(.*)\z`)
	createFilling = regexp.MustCompile(`(?s)\ACREATE MATERIALIZED VIEW IF NOT EXISTS (\w+) TO (\w+) AS\n(.*)\z`)
	createView    = regexp.MustCompile(`(?s)\ACREATE OR REPLACE VIEW (\w+) AS\n(.*)\z`)
	drop          = regexp.MustCompile(`\ADROP (TABLE|VIEW) IF EXISTS (\w+)\z`)
	alter         = regexp.MustCompile(`(?s)\AALTER TABLE (\w+)\s(.*)\z`)
	alterColumns  = regexp.MustCompile(`\A\s*(ADD|MODIFY|DROP) COLUMN `)
	fromTable     = regexp.MustCompile(`\bFROM (otel_\w+|traffic_\w+)`)
)

var errNoForm = errors.New("has no form on a cluster")

// statements are what a migration's statement is on the cluster: all that is said of
// tables here, so that a migration is written once, for one node.
func (c Cluster) statements(database, sql string) ([]string, error) {
	if c.Name == "" {
		return []string{sql}, nil
	}
	if sql = comment.ReplaceAllString(sql, ""); sql == "" {
		return nil, nil
	}
	if m := createTable.FindStringSubmatch(sql); m != nil {
		return c.table(database, m[1], m[2], m[3], m[4], m[5])
	}
	if m := createFilling.FindStringSubmatch(sql); m != nil {
		from := fromTable.ReplaceAllString(m[3], "FROM ${1}"+localSuffix)
		return []string{"CREATE MATERIALIZED VIEW IF NOT EXISTS " + m[1] + c.on() + " TO " + c.local(m[2]) + " AS\n" + from}, nil
	}
	if m := createView.FindStringSubmatch(sql); m != nil {
		return []string{"CREATE OR REPLACE VIEW " + m[1] + c.on() + " AS\n" + m[2]}, nil
	}
	if m := drop.FindStringSubmatch(sql); m != nil {
		gone := func(name string) string { return "DROP " + m[1] + " IF EXISTS " + name + c.on() + " SYNC" } // or its place in Keeper stays taken
		if m[1] == "VIEW" {
			return []string{gone(m[2])}, nil
		}
		return []string{gone(m[2]), gone(c.local(m[2]))}, nil
	}
	if m := alter.FindStringSubmatch(sql); m != nil {
		rest := strings.Replace(m[2], waitForOne, c.waitForMutation(), 1)
		out := []string{"ALTER TABLE " + c.local(m[1]) + c.on() + " " + rest}
		if alterColumns.MatchString(rest) {
			out = append(out, "ALTER TABLE "+m[1]+c.on()+" "+rest)
		}
		return out, nil
	}
	if strings.HasPrefix(sql, "INSERT INTO ") {
		return []string{sql}, nil
	}
	return nil, fmt.Errorf("%.40q: %w", sql, errNoForm)
}

// table is the local one and the one over all shards.
func (c Cluster) table(database, name, columns, engine, version, rest string) ([]string, error) {
	key, err := shardBy(name)
	if err != nil {
		return nil, err
	}
	args := "'" + c.Path + "', '" + c.Replica + "'"
	if version != "" {
		args += ", " + version
	}
	rest = strings.Replace(rest, "non_replicated_deduplication_window = 10000",
		"replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800", 1)
	return []string{
		fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s\n%s\nENGINE = Replicated%s(%s)\n%s", c.local(name), c.on(), columns, engine, args, rest),
		fmt.Sprintf("CREATE TABLE IF NOT EXISTS %s%s AS %s.%s\nENGINE = Distributed('%s', '%s', '%s', %s)", name, c.on(), database, c.local(name), c.Name, database, c.local(name), key),
	}, nil
}

// shardBy is what decides about a row's shard. It depends on the row alone, so that a batch
// that is sent again is recognized there. Spans of a trace lie together; rows of which only
// the newest counts do too.
func shardBy(table string) (string, error) {
	switch {
	case table == "otel_traces":
		return "cityHash64(TraceId)", nil
	case table == "otel_logs":
		return "cityHash64(TraceId, Timestamp)", nil // most may be of no trace
	case strings.HasPrefix(table, "otel_metrics_"):
		return "cityHash64(MetricName, ServiceName, Attributes)", nil
	case strings.HasPrefix(table, "traffic_group"):
		return "cityHash64(TrafficGroup)", nil // a view fills the shard of its spans; only migrations write here
	case table == "traffic_call":
		return "cityHash64(Caller)", nil
	case table == "traffic_decisions":
		return "cityHash64(Id)", nil
	case table == "traffic_watermark":
		return "cityHash64(Receiver)", nil
	}
	return "", fmt.Errorf("table %s: is not known to be divided among shards", table)
}
