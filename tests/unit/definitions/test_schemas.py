"""The schemas for editors agree with what is read."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from swarm.definitions.loading import parse_agent, parse_workflow
from swarm.definitions.schemas import agent_schema, workflow_schema
from swarm.definitions.source import read_yaml
from swarm.kernel.errors import DefinitionError
from swarm.kernel.json import JsonObject

AGENTS = [
    "{name: a, version: 1.0.0, runtime: {entry: main.py}}",
    "{name: a, version: 1.0.0, runtime: {type: command, entry: [./run, -x]}}",
    "{name: a, version: 2.0.0-rc.1, runtime: {type: node, entry: m.js, memory_mb: 256,"
    " requires: [git]}, inputs: [{name: x, type: array, enum: [[1]], schema: {maxItems: 3}},"
    " {name: y, default: z}], outputs: [{name: o, type: file, required: false}],"
    " permissions: {network: ['*'], secrets: [KEY]}, environment: {A: b}, tags: [t],"
    " triggers: [{type: manual}], metadata: {k: 1}}",
    "{name: a, version: 1.0.0, entrypoint: 'm:f', runtime: python3.11}",
    "{name: a, entrypoint: 'm:f', runtime: node20, metadata: {version: 1.0.0}, license: MIT,"
    " display_name: A, a2a: {service: x}, permissions: {required: [user.files]}}",
    "{name: a, version: 1.0.0, entrypoint: 'm:f', runtime: {memory_mb: 64}}",
]
FAULTY_AGENTS = [
    "[]",
    "{name: A, version: 1.0.0, runtime: {entry: main.py}}",
    "{name: a, version: 1.0, runtime: {entry: main.py}}",
    "{name: a, version: 1.0.0}",
    "{name: a, version: 1.0.0, runtime: {entry: main.py, timeout: 3}}",
    "{name: a, version: 1.0.0, runtime: {entry: main.py}, license: MIT}",
    "{name: a, version: 1.0.0, runtime: {entry: main.py}, inputs: [{name: a-b}]}",
    "{name: a, version: 1.0.0, runtime: {entry: main.py}, inputs: [{name: a, type: text}]}",
    "{name: a, version: 1.0.0, runtime: python3.11}",
    "{name: a, version: 1.0.0, runtime: go1.21, entrypoint: 'm:f'}",
    "{name: a, entrypoint: 'm:f', runtime: python3.11}",
]
WORKFLOWS = [
    "{name: a, version: 1.0.0, steps: [{id: x, agent: echo}]}",
    "{name: a, version: 1.0.0, trigger: {type: manual}, inputs: [{name: i, default: 1,"
    " type: integer}], config: {c: 1}, variables: {v: '${inputs.i}'}, outputs: {o: x},"
    " steps: [{id: x, name: X, agent: 'echo@1.0.0', inputs: {m: [1, {a: b}]}, needs: [],"
    " when: '${inputs.i > 1}', retry: {attempts: 2, on: [timeout]}, timeout_seconds: 1.5,"
    " on_error: continue, isolation: microvm, network: []}],"
    " on_error: [{notify: {type: log, message: m, level: error}}], on_success: [], tags: [a]}",
    "{name: a, version: 1.0.0, inputs: [{name: i}], outputs: [{name: o, value: 1, type: integer}],"
    " steps: [{id: x, workflow: b, for_each: [1, '${inputs.i}'], max_parallel: 2,"
    " on_error: {steps: [{id: y, agent: z, cache: {}}], then: continue}},"
    " {id: t, wait: {duration: 2d}}, {id: u, wait: {until: '2030-01-31T09:00Z'}},"
    " {id: v, wait: {approval: {message: m, form: [{name: f}], deadline: 5}}},"
    " {id: w, wait: {event: {name: e, key: k, deadline: 5m}}}],"
    " on_cancel: [{step: {id: s, agent: z}}], timeout_seconds: 5, priority: -3, search: [i],"
    " concurrency: {key: '${inputs.i}', limit: 2}, budget: {usd: 1.5}, labels: {a: b}}",
]
FAULTY_WORKFLOWS = [
    "{name: a, version: 1.0.0}",
    "{name: a, version: 1.0.0, steps: []}",
    "{name: a, version: 1.0.0, steps: [{id: a-b, agent: x}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, agent: x, depends_on: y}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, agent: x, retry: {attempts: 0}}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, agent: x}], variables: {a-b: 1}}",
    "{name: a, version: 1.0.0, steps: [{id: x, agent: x}], on_error: [{log: x}]}",
    "{name: a, version: 1.0.0, steps: [{id: x}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, agent: x, workflow: y}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, agent: x, max_parallel: 2}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, workflow: x, cache: {}}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, wait: {duration: 1}, retry: {}}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, wait: {}}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, wait: {duration: 1, event: {name: e}}}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, agent: x, on_error: {steps: [{id: y}]}}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, agent: x}], on_success: [{}]}",
    "{name: a, version: 1.0.0, steps: [{id: x, agent: x}], budget: {}}",
    "{name: a, version: 1.0.0, steps: [{id: x, agent: x}], outputs: [{name: o}]}",
]


def _validator(schema: JsonObject) -> jsonschema_rs.Draft202012Validator:
    assert jsonschema_rs.meta.is_valid(schema)
    return jsonschema_rs.Draft202012Validator(schema)


@pytest.mark.parametrize(
    ("schema", "parse", "good", "bad"),
    [
        (agent_schema(), parse_agent, AGENTS, FAULTY_AGENTS),
        (workflow_schema(), parse_workflow, WORKFLOWS, FAULTY_WORKFLOWS),
    ],
    ids=["agent", "workflow"],
)
def test_schema_and_reader_agree(
    schema: JsonObject, parse: Any, good: list[str], bad: list[str]
) -> None:
    validator = _validator(schema)
    for text in good:
        parse(text, "f")
        assert [e.message for e in validator.iter_errors(read_yaml(text, "f").data)] == []
    for text in bad:
        with pytest.raises(DefinitionError):
            parse(text, "f")
        assert not validator.is_valid(read_yaml(text, "f").data), text


@pytest.mark.parametrize("schema", [agent_schema(), workflow_schema()], ids=["agent", "workflow"])
def test_everything_is_described_and_closed(schema: JsonObject) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].startswith("urn:swarm:schema:")
    assert schema["title"]
    bodies = [schema, *schema["$defs"].values()]
    for body in bodies:
        if "properties" not in body:
            continue
        assert body["additionalProperties"] is False
        assert body["description"]
        for name, entry in body["properties"].items():
            assert "description" in entry or "$ref" in entry or "anyOf" in entry, name
