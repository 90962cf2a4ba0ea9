package main

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
)

// filesJSON describes the routes of core/api/files.go, which have no form in the proto.
//
//go:embed files.json
var filesJSON []byte

// addFiles adds the routes of files. What a file is, the proto says.
func addFiles(doc object) error {
	var files struct {
		Tags        []any
		Definitions map[string]object
		Paths       map[string]map[string]object
	}
	if err := json.Unmarshal(filesJSON, &files); err != nil {
		return fmt.Errorf("read files.json: %w", err)
	}
	tags, _ := doc["tags"].([]any)
	doc["tags"] = append(tags, files.Tags...)
	paths, _ := doc["paths"].(object)
	for path, methods := range files.Paths {
		item := object{}
		for method, described := range methods {
			responses, _ := described["responses"].(object)
			for status, response := range responses {
				if refused, ok := response.(object); ok && status >= "400" {
					refused["schema"] = errorRef()
				}
			}
			responses["default"] = object{"description": "What else went wrong.", "schema": errorRef()}
			item[method] = described
		}
		paths[path] = item
	}
	definitions, _ := doc["definitions"].(object)
	file, _ := definitions["File"].(object)
	fields, ok := file["properties"].(object)
	if !ok {
		return errors.New("message File is not in what the plugin has made")
	}
	link := files.Definitions["FileLink"]
	properties, _ := link["properties"].(object)
	maps.Copy(properties, fields)
	definitions["FileLink"] = link
	return nil
}
