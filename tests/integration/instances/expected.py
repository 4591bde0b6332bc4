"""What a run of an imported instance must come to, computed from the instance's JSON alone.

Nothing of Swarm is used: neither its reader of instances nor its planner nor the agent.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INSTANCES = Path(__file__).resolve().parents[2] / "instances"
SMALL = (
    "blast-60",
    "bwa-106",
    "cycles-69",
    "epigenomics-60",
    "genome-60",
    "montage-60",
    "seismology-103",
    "soykb-98",
    "srasearch-60",
)
ROUNDS_PER_MS = 5_000


@dataclass(frozen=True)
class Expected:
    """The DAG of an instance and what each step gives."""

    parents: Mapping[str, tuple[str, ...]]
    """By step id, in the order in which the tasks stand in the instance."""
    outputs: Mapping[str, Mapping[str, str]]
    names: Mapping[str, str]
    """The tasks' own ids, by step id."""


def read_instance(name: str) -> dict[str, Any]:
    """One of the instances in ``tests/instances``."""
    document: dict[str, Any] = json.loads(
        gzip.decompress((INSTANCES / f"{name}.json.gz").read_bytes())
    )
    return document


def expect(instance: dict[str, Any], longest_ms: float, largest_bytes: int) -> Expected:
    """Work the instance out.

    Its task ids must stay different as identifiers and be short, and ``largest_bytes`` so small
    that what any task receives is below the limit of inputs.
    """
    specification = instance["workflow"]["specification"]
    tasks = specification["tasks"]
    seconds = {
        task["id"]: task["runtimeInSeconds"] for task in instance["workflow"]["execution"]["tasks"]
    }
    file_sizes = {file["id"]: file["sizeInBytes"] for file in specification["files"]}
    written = {task["id"]: sum(file_sizes[one] for one in task["outputFiles"]) for task in tasks}
    rounds_share = longest_ms * ROUNDS_PER_MS / max(seconds.values())
    bytes_share = largest_bytes / max(written.values())
    ids = {task["id"]: re.sub(r"\W", "_", task["id"]) for task in tasks}
    assert len(set(ids.values())) == len(tasks)
    place = {task["id"]: number for number, task in enumerate(tasks)}
    parents = {task["id"]: sorted(task["parents"], key=place.__getitem__) for task in tasks}
    digests: dict[str, bytes] = {}
    outputs = {}
    for task in topological(parents):
        rounds = max(1, round(seconds[task] * rounds_share))
        before = hashlib.sha256(b"".join(digests[parent] for parent in parents[task])).digest()
        digests[task] = hashlib.pbkdf2_hmac("sha256", before, task.encode(), rounds)
        size = int(written[task] * bytes_share)
        data = hashlib.shake_256(digests[task]).hexdigest(size)[:size]
        outputs[ids[task]] = {"digest": digests[task].hex(), "data": data}
    return Expected(
        {ids[task]: tuple(ids[parent] for parent in parents[task]) for task in parents},
        outputs,
        {ids[task]: task for task in parents},
    )


def topological(parents: Mapping[str, Any]) -> list[str]:
    """The nodes, each after all its parents (Kahn's algorithm)."""
    missing = {node: len(set(above)) for node, above in parents.items()}
    children: dict[str, list[str]] = {node: [] for node in parents}
    for node, above in parents.items():
        for parent in set(above):
            children[parent].append(node)
    order = [node for node, count in missing.items() if count == 0]
    for node in order:
        for child in children[node]:
            missing[child] -= 1
            if missing[child] == 0:
                order.append(child)
    assert len(order) == len(parents), "the DAG has a cycle"
    return order


def critical_path(parents: Mapping[str, Any], durations: Mapping[str, float]) -> float:
    """The longest sum of durations along any path."""
    ends: dict[str, float] = {}
    for node in topological(parents):
        ends[node] = durations[node] + max((ends[parent] for parent in parents[node]), default=0.0)
    return max(ends.values())
