"""Nothing foreign comes out by the outputs, and nothing in them trips the host."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.security.attacks.ground import SECRET, Ground, Verdict

_ABSOLUTE = "{shown}/secret.txt"


@dataclass(frozen=True)
class Smuggling:
    """What the handler leaves in ``/outputs``, and the output that it names then."""

    name: str
    path: str = "out"
    type: str = "file"
    reason: str = ""
    """Part of the collector's refusal."""
    kept_inside: str | None = None
    """The errno that keeps it from being left there at all."""
    targets: dict[str, Any] = field(default_factory=dict)
    live_input: bool = False


_LINKS = (
    Smuggling("link", reason="Too many levels of symbolic links"),
    Smuggling("linked-folder", "folder/secret.txt", reason="Not a directory"),
    Smuggling("link-in-tree", "tree", "directory", "Too many levels of symbolic links"),
    Smuggling("absolute", _ABSOLUTE, reason="does not lie below $SWARM_OUTPUTS"),
)
_OTHERS = (
    Smuggling("fifo", reason="only regular files"),
    Smuggling("fifo-in-tree", "tree", "directory", "only regular files"),
    Smuggling("unix-socket", reason="No such device or address"),
    Smuggling("package-file", kept_inside="EXDEV"),
    Smuggling("input-file", kept_inside="EXDEV", live_input=True),
    Smuggling("device", kept_inside="EPERM"),
    Smuggling("many-files", "tree", "directory", kept_inside="ENOSPC", targets={"count": 2000}),
    Smuggling("link", "../outputs/out", reason="does not lie below $SWARM_OUTPUTS"),
    Smuggling("link", "a/../../out", reason="does not lie below $SWARM_OUTPUTS"),
    Smuggling("odd-names", "tree", "directory", "its name is not UTF-8"),
    Smuggling("deep-tree", "tree", "directory", "more than 64 levels"),
    Smuggling(
        "sparse-files",
        "tree",
        "directory",
        "more bytes in files than the limit",
        targets={"count": 5, "bytes": 4 << 20},
    ),
)


def _smuggle(ground: Ground, attack: Smuggling, *, naive: bool) -> Verdict:
    return ground.order(
        f"outputs-{attack.name}",
        targets=attack.targets,
        live_input=attack.live_input,
        collect={"path": attack.path, "type": attack.type, "naive": naive},
    )


@pytest.mark.parametrize("attack", _LINKS, ids=lambda attack: attack.name)
def test_links_lead_out_of_a_naive_collector(ground: Ground, attack: Smuggling) -> None:
    collected = _smuggle(ground, attack, naive=True).facts["collected"]
    assert SECRET in collected["content"], collected


@pytest.mark.parametrize("attack", [*_LINKS, *_OTHERS], ids=lambda a: f"{a.name}-{a.path[:4]}")
def test_outputs_hold_nothing_foreign(ground: Ground, attack: Smuggling) -> None:
    verdict = _smuggle(ground, attack, naive=False)
    if attack.kept_inside:
        assert verdict.refusal == attack.kept_inside, str(verdict)
        return
    assert verdict.gained, str(verdict)
    assert attack.reason in verdict.facts["collected"]["refused"], str(verdict)


def _forged_listing(ground: Ground, *, naive: bool) -> Verdict:
    """A file that looks like the listing of a directory, and is handed out as that directory."""
    place = str(ground.folder / "home/attacked")
    content = "attacked"
    digest = hashlib.sha256(content.encode()).hexdigest()
    entry = {"path": place, "sha256": digest, "size": len(content), "executable": True}
    listing = json.dumps({"files": [entry]})
    reference = f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"
    directory = {"$artifact": reference, "name": "tree", "media_type": "inode/directory"}
    outputs = {"content": {"$file": "content"}, "listing": {"$file": "listing"}, "tree": directory}
    return ground.order(
        "outputs-written",
        targets={"files": {"content": content, "listing": listing}},
        collect={"outputs": outputs, "naive": naive},
    )


def test_a_forged_listing_writes_where_it_likes_for_who_trusts_it(ground: Ground) -> None:
    collected = _forged_listing(ground, naive=True).facts["collected"]
    assert collected == {"content": "attacked"}


def test_a_forged_listing_is_no_directory(ground: Ground) -> None:
    collected = _forged_listing(ground, naive=False).facts["collected"]
    assert "returned a file as a directory" in collected["refused"]
    assert not (ground.folder / "home/attacked").exists()
