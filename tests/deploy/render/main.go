// Render a Helm chart as `helm template` does: text/template and Sprig, Helm's own functions besides.
//
// For tests on machines without Helm. Helm v3's engine is the same two libraries; what it adds here
// are include, tpl, required, toYaml, fromYaml, toJson. Not there: lookup, subcharts,
// .Files beyond Get, .Capabilities beyond the version.
//
// usage: render CHART RELEASE NAMESPACE [VALUES.yaml...]
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

// files is what a chart sees of its own folder.
type files struct{ folder string }

func (f files) Get(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(f.folder, name))
	return string(data), err
}

type document = map[string]interface{}

func main() {
	if err := render(os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func render(chart, release, namespace string, overrides []string) error {
	values, err := load(filepath.Join(chart, "values.yaml"))
	if err != nil {
		return err
	}
	for _, path := range overrides {
		more, err := load(path)
		if err != nil {
			return err
		}
		values = merge(values, more)
	}
	about, err := load(filepath.Join(chart, "Chart.yaml"))
	if err != nil {
		return err
	}
	capital := document{}
	for key, value := range about {
		capital[strings.ToUpper(key[:1])+key[1:]] = value
	}
	context := document{
		"Values": values,
		"Files":  files{chart},
		"Chart":  capital,
		"Release": document{
			"Name": release, "Namespace": namespace, "Service": "Helm",
			"IsInstall": true, "IsUpgrade": false, "Revision": 1,
		},
		"Capabilities": document{"KubeVersion": document{"Version": "v1.33.0"}},
	}
	paths, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	if err != nil {
		return err
	}
	sort.Strings(paths)
	all := template.New("chart").Option("missingkey=zero")
	all.Funcs(functions(all))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if _, err := all.New(path).Parse(string(text)); err != nil {
			return err
		}
	}
	for _, path := range paths {
		if !strings.HasSuffix(path, ".yaml") {
			continue
		}
		var out strings.Builder
		if err := all.ExecuteTemplate(&out, path, context); err != nil {
			return err
		}
		// missingkey=zero prints this for what is not there, which Helm takes away likewise.
		text := strings.ReplaceAll(out.String(), "<no value>", "")
		if strings.TrimSpace(text) != "" {
			fmt.Printf("---\n# Source: %s\n%s\n", filepath.Base(path), strings.TrimSpace(text))
		}
	}
	return nil
}

func functions(all *template.Template) template.FuncMap {
	made := sprig.TxtFuncMap()
	delete(made, "env")
	delete(made, "expandenv")
	made["include"] = func(name string, data interface{}) (string, error) {
		var out strings.Builder
		err := all.ExecuteTemplate(&out, name, data)
		return out.String(), err
	}
	made["tpl"] = func(text string, data interface{}) (string, error) {
		clone, err := all.Clone()
		if err != nil {
			return "", err
		}
		parsed, err := clone.New("tpl").Parse(text)
		if err != nil {
			return "", err
		}
		var out strings.Builder
		err = parsed.Execute(&out, data)
		return out.String(), err
	}
	made["required"] = func(message string, value interface{}) (interface{}, error) {
		if value == nil || value == "" {
			return nil, fmt.Errorf("%s", message)
		}
		return value, nil
	}
	made["toYaml"] = func(value interface{}) (string, error) {
		data, err := yaml.Marshal(value)
		return strings.TrimSuffix(string(data), "\n"), err
	}
	made["toJson"] = func(value interface{}) (string, error) {
		data, err := json.Marshal(value)
		return string(data), err
	}
	return made
}

func load(path string) (document, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	made := document{}
	return made, yaml.Unmarshal(data, &made)
}

// merge lays one document of values over another, as Helm does: null takes a key away.
func merge(base, over document) document {
	for key, value := range over {
		if value == nil {
			delete(base, key)
			continue
		}
		below, isBase := base[key].(document)
		above, isOver := value.(document)
		if isBase && isOver {
			base[key] = merge(below, above)
		} else {
			base[key] = value
		}
	}
	return base
}
