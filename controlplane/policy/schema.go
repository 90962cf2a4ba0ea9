package policy

import _ "embed"

// Schema is the JSON Schema (2020-12) of policy.yaml, for editors. It is generated from
// the types and says less than [Parse]: what it refuses, Parse refuses, with a test.
//
//go:embed policy.schema.json
var Schema []byte
