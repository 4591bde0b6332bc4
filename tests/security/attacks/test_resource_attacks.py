"""What an invocation can use up, and what it can leave behind.

The wall is a limit here. Each control makes the same attack under a larger one, or without it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from tests.security.attacks.ground import Ground, Verdict

_MEBIBYTE = 1024 * 1024
_NO_LIMITS = frozenset({"resource-limits", "cgroup"})


@dataclass(frozen=True)
class Bomb:
    """An attack on one resource."""

    name: str
    targets: dict[str, Any]
    limits: dict[str, float]
    control: dict[str, float]
    """Limits of the control."""
    refusals: frozenset[str]
    without: frozenset[str] = frozenset()
    """Layers that the control lacks."""


def _full(*refusals: str) -> frozenset[str]:
    return frozenset(refusals)


_BOMBS = (
    Bomb("forks", {"count": 60}, {"processes": 32}, {}, _full("EAGAIN"), _NO_LIMITS),
    Bomb("threads", {"count": 60}, {"processes": 32}, {}, _full("EAGAIN"), _NO_LIMITS),
    Bomb(
        "memory",
        {"megabytes": 256},
        {"memory_bytes": 128 * _MEBIBYTE},
        {"memory_bytes": 1024 * _MEBIBYTE},
        _full("oom"),
    ),
    Bomb(
        "memory-by-children",
        {"megabytes_each": 48, "count": 6, "hold_seconds": 10},
        {"memory_bytes": 192 * _MEBIBYTE},
        {"memory_bytes": 2048 * _MEBIBYTE},
        _full("oom"),
    ),
    Bomb(
        "memory-in-files",
        {"megabytes": 256, "hold_seconds": 10},
        {"memory_bytes": 128 * _MEBIBYTE},
        {"memory_bytes": 1024 * _MEBIBYTE},
        _full("oom", "ENOSYS"),
        frozenset({"seccomp"}),
    ),
    Bomb(
        "disk",
        {"megabytes": 16},
        {"work_bytes": 8 * _MEBIBYTE},
        {"work_bytes": 32 * _MEBIBYTE},
        _full("ENOSPC"),
    ),
    Bomb(
        "output-disk",
        {"megabytes": 16},
        {"output_files_bytes": 8 * _MEBIBYTE},
        {"output_files_bytes": 32 * _MEBIBYTE},
        _full("ENOSPC"),
    ),
    Bomb("one-large-file", {"bytes": 1 << 40}, {}, {}, _full("EFBIG"), _NO_LIMITS),
    Bomb("inodes", {"count": 400}, {"work_files": 200}, {"work_files": 500}, _full("ENOSPC")),
    Bomb(
        "output-inodes", {"count": 400}, {"output_files": 200}, {"output_files": 500},
        _full("ENOSPC"),
    ),
    Bomb("descriptors", {"count": 4200}, {}, {}, _full("EMFILE"), _NO_LIMITS),
)  # fmt: skip


@pytest.mark.parametrize("bomb", _BOMBS, ids=lambda bomb: bomb.name)
def test_bomb(ground: Ground, bomb: Bomb) -> None:
    verdict = ground.order(f"resources-{bomb.name}", targets=bomb.targets, limits=bomb.limits)
    assert verdict.gained is None, str(verdict)
    assert verdict.refusal in bomb.refusals, str(verdict)


@pytest.mark.parametrize("bomb", _BOMBS, ids=lambda bomb: bomb.name)
def test_bomb_bursts_without_its_limit(ground: Ground, bomb: Bomb) -> None:
    verdict = ground.order(
        f"resources-{bomb.name}",
        bomb.without,
        # It has got all that it wanted by then, and nothing is to come.
        targets={**bomb.targets, "hold_seconds": 0},
        limits={**bomb.limits, **bomb.control},
    )
    assert verdict.gained, f"the attack is empty: {verdict}"


@pytest.mark.parametrize("wall", ["resource-limits", "cgroup"])
@pytest.mark.parametrize("bomb", ["forks", "threads"])
def test_processes_are_counted_twice(ground: Ground, bomb: str, wall: str) -> None:
    if wall == "cgroup" and not any(layer.startswith("cgroup") for layer in _layers(ground)):
        pytest.skip("no control group can be made by this user on this machine")
    verdict = ground.order(
        f"resources-{bomb}", _NO_LIMITS - {wall}, targets={"count": 60}, limits={"processes": 32}
    )
    assert verdict.refusal == "EAGAIN", str(verdict)


def _layers(ground: Ground) -> list[str]:
    layers: list[str] = ground.order("privilege-hold-capabilities").facts["layers"]
    return layers


def _log(ground: Ground, attack: str, **limits: float) -> Verdict:
    targets = {"lines": 3000, "megabytes": 4}
    verdict = ground.order(f"resources-{attack}", targets=targets, limits=limits)
    assert verdict.gained, str(verdict)
    return verdict


def test_a_flood_of_log_lines_is_cut(ground: Ground) -> None:
    unbounded = _log(ground, "log", log_bytes=16 * _MEBIBYTE)
    assert unbounded.facts["log_bytes"] >= 3_000_000
    assert _log(ground, "log", log_bytes=_MEBIBYTE).facts["log_bytes"] < 1.1 * _MEBIBYTE


def test_a_line_without_end_is_cut(ground: Ground) -> None:
    large = {"log_bytes": 16 * _MEBIBYTE}
    unbounded = _log(ground, "log-line", log_line_bytes=16 * _MEBIBYTE, **large)
    assert unbounded.facts["longest_line"] >= 4 * _MEBIBYTE
    bounded = _log(ground, "log-line", log_line_bytes=16 * 1024, **large)
    assert bounded.facts["longest_line"] < 17 * 1024


@pytest.mark.parametrize("attack", ["spin", "spin-in-children"])
def test_spinning_is_stopped_in_time(ground: Ground, attack: str) -> None:
    name = f"resources-{attack}"
    limits, mark = {"timeout_seconds": 0.4}, _mark()
    stopped = ground.order(name, targets={"seconds": 60, "mark": mark}, limits=limits)
    assert stopped.facts["outcome"] == "timeout", str(stopped)
    assert stopped.facts["wall_ms"] < 10_000
    assert stopped.facts["survivors"] == 0
    control = ground.order(name, targets={"seconds": 1, "mark": mark})
    assert control.gained, "the attack is empty"
    assert control.facts["wall_ms"] >= 1000


_LASTING = ("daemon", "many-daemons", "unkillable-wait", "ignore-the-end", "fork-bomb")


def _mark() -> str:
    """A name for the processes of one attack, as long as a name may be."""
    return f"atk{uuid.uuid4().hex[:12]}"


def _last(ground: Ground, attack: str, *without: str) -> Verdict:
    return ground.order(
        f"resources-{attack}",
        frozenset(without),
        targets={"mark": _mark(), "seconds": 1},
        limits={"timeout_seconds": 1.5, "processes": 24},
    )


@pytest.mark.parametrize("attack", _LASTING)
def test_nothing_outlives_its_call(ground: Ground, attack: str) -> None:
    verdict = _last(ground, attack)
    assert verdict.facts["survivors"] == 0, str(verdict)
    assert verdict.facts["outcome"] in ("ok", "timeout"), str(verdict)
    assert verdict.facts["wall_ms"] < 10_000, str(verdict)


@pytest.mark.parametrize("attack", _LASTING)
def test_it_would_without_a_pid_namespace(ground: Ground, attack: str) -> None:
    assert _last(ground, attack, "pid-namespace").facts["survivors"] > 0, "the attack is empty"


def test_no_process_is_left_to_who_does_not_know_of_it(ground: Ground) -> None:
    """It would keep the sandbox from ever ending: its control must not have a pid namespace."""
    targets = {"mark": _mark()}
    verdict = ground.order("resources-sibling", targets=targets)
    assert verdict.refusal == "EPERM", str(verdict)
    assert verdict.facts["survivors"] == 0
    without = frozenset({"seccomp", "pid-namespace"})
    control = ground.order("resources-sibling", without, targets=targets)
    assert control.facts["survivors"] > 0, "the attack is empty"


def _twice(ground: Ground, attack: str, *without: str) -> list[str | None]:
    """What two invocations gain, one after the other."""
    orders = [
        ground.order(attack, frozenset(without), targets={"turn": turn}) for turn in ("1", "2")
    ]
    return [order.gained for order in orders]


def test_no_invocation_finds_the_files_of_another(ground: Ground) -> None:
    assert _twice(ground, "leaks-other-files") == [None, None]
    assert _twice(ground, "leaks-other-files", "private-folders")[1], "the attack is empty"


def test_no_invocation_can_foretell_the_numbers_of_another(ground: Ground) -> None:
    first, second = _twice(ground, "leaks-random-state")
    assert first != second
    first, second = _twice(ground, "leaks-random-state", "reseeding")
    assert first is not None
    assert first == second, "the attack is empty"
