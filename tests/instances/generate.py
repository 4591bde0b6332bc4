# /// script
# requires-python = ">=3.11"
# dependencies = ["wfcommons==1.6"]
# ///
"""Write the workflow instances beside this file anew, with the generator of the WfCommons project.

usage: uv run --script tests/instances/generate.py

It is a program of its own, with an environment of its own: the generator is under the LGPL and
needs some 400 MB of libraries, so neither Swarm nor its tests import it.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy
from wfcommons import WorkflowGenerator
from wfcommons.wfchef import recipes

FOLDER = Path(__file__).parent
SEED = 20
SMALL = {
    "blast": 60,
    "bwa": 106,
    "cycles": 69,
    "epigenomics": 60,
    "genome": 60,
    "montage": 60,
    "seismology": 103,
    "soykb": 98,
    "srasearch": 60,
}
"""How many tasks at most; about the fewest that each recipe can make."""
LARGE = 1_000
LARGEST = {"montage": 10_000}


def main() -> None:
    for application, tasks in SMALL.items():
        write(application, tasks)
        write(application, LARGE)
    for application, tasks in LARGEST.items():
        write(application, tasks)


def write(application: str, tasks: int) -> None:
    random.seed(SEED)
    numpy.random.seed(SEED)
    recipe = getattr(recipes, f"{application.capitalize()}Recipe")
    workflow = WorkflowGenerator(recipe.from_num_tasks(tasks)).build_workflow()
    workflow.generate_json()
    text = json.dumps(shortened(workflow.workflow_json), separators=(",", ":"))
    target = FOLDER / f"{application}-{tasks}.json.gz"
    # Without a time, so that equal instances are equal files.
    target.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{target.name}: {len(workflow.tasks)} tasks, {target.stat().st_size} bytes")  # noqa: T201


def shortened(instance: dict[str, Any]) -> dict[str, Any]:
    """``instance`` without time and author, its files numbered: they are called by random UUIDs."""
    del instance["createdAt"], instance["author"]
    specification = instance["workflow"]["specification"]
    numbered = {
        file["id"]: f"{number}{Path(file['id']).suffix}"
        for number, file in enumerate(specification["files"])
    }
    for file in specification["files"]:
        file["id"] = numbered[file["id"]]
    for task in specification["tasks"]:
        for key in ("inputFiles", "outputFiles"):
            task[key] = [numbered[one] for one in task[key]]
    return instance


if __name__ == "__main__":
    main()
