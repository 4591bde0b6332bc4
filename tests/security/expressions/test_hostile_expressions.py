"""No expression can take the memory of the process that evaluates it, or keep it for long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import swarm

TEXT = "inputs.text"
HOSTILE = {
    "repeat": "'x' * 100000000",
    "repeats at compile time": "[" + ", ".join(["'x' * 99999999"] * 60) + "]|length",
    "repeat of an array": "([0] * 99999999)|length",
    "repeat, hidden": "(true and inputs.text) * 99999999",
    "power": "9 ** 9 ** 9 ** 9",
    "format": "'%999999999d'|format(1)",
    "batch": "[1]|batch(999999999, 0)|list",
    "slice": "[1]|slice(999999999)|list",
    "indent": "inputs.lines|indent(99999)",
    "range": "range(999999999)|list",
    "join": "inputs.rows|map('string')|join(inputs.text)",
    "replace": "inputs.text|replace('x', inputs.text)",
    "replace nothing": "inputs.text|replace('', inputs.text)",
    "replace in many": "inputs.words|map('replace', 'x', inputs.text)|list",
    "default for many": "inputs.rows|map(attribute='no', default=inputs.text)|list",
    "default by name": "inputs.rows|map(attribute='no')|map('default', inputs.text)|list",
    "chain": "inputs.rows|map('chain', inputs.rows)|list",
    "map of a map": "inputs.rows|map('map', 'default', inputs.text)|list",
    "group": "inputs.rows|groupby('no', default=inputs.text)",
    "quotes in quotes": "{}".format("[" * 24 + "inputs.quotes" + "]|string" * 24),
    "JSON in JSON": "inputs.quotes" + "|tojson" * 60,
    "quotes joined": "([" * 15 + "inputs.quotes" + "] ~ '')" * 15,
    "encoded": "inputs.text" + "|urlencode" * 60,
    "long concatenation": " ~ ".join([TEXT] * 140),
    "long sum": " + ".join([TEXT] * 140),
    "many copies": "[" + ", ".join([TEXT] * 140) + "]",
    "many lists": "[" + ", ".join(["inputs.rows"] * 140) + "]",
    "deep": "(" * 31 + "1" + ")" * 31,
    "long": "1" + " + 1" * 400,
    "comparisons": " < ".join(["inputs.rows"] * 100),
    "sorting": "inputs.rows|sort(attribute='a')|map(attribute='a')|sum",
}

TEMPLATES = {name: "${" + expression + "}" for name, expression in HOSTILE.items()} | {
    "many texts in one": "${inputs.text}" * 10_000,
    "many arrays in one": "${inputs.rows}" * 10_000,
}

PROGRAM = """
import json, resource, sys
from swarm.expressions.template import compile_template
from swarm.kernel.errors import ExpressionError
resource.setrlimit(resource.RLIMIT_AS, (1536 * 2**20, 1536 * 2**20))
scope = {"inputs": {
    "text": "x" * 2**20, "lines": "a\\n" * 2**16, "quotes": "\\"'\\\\" * 1000,
    "rows": [{"a": n} for n in range(20000)], "words": ["x"] * 20000,
}}
for name, template in json.load(sys.stdin).items():
    try:
        value = compile_template(template, where="w").evaluate(scope)
        outcome = f"value of {len(json.dumps(value))}"
    except ExpressionError as error:
        outcome = "refused: " + error.message[-200:]
    print(json.dumps([name, outcome]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """What became of each template, in a process with 1.5 GiB of address space."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(TEMPLATES),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(swarm.__file__).parents[1])},
        check=False,
    )
    return dict(json.loads(line) for line in ended.stdout.splitlines())


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_hostile_template_is_survived(name: str, outcomes: dict[str, str]) -> None:
    assert name in outcomes, "the process ended before or at this template"
    assert outcomes[name].startswith(("refused:", "value of"))


def test_what_would_be_huge_is_refused(outcomes: dict[str, str]) -> None:
    values = {name for name, outcome in outcomes.items() if outcome.startswith("value of")}
    assert values <= {"comparisons", "deep", "sorting", "replace in many"}
