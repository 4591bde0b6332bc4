"""The DAG as text, Graphviz, Mermaid and JSON."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from swarm.cli.render.graph import Node, as_document, as_dot, as_mermaid, as_text, levels
from swarm.cli.terminal import Terminal

PIPE = Terminal(io.StringIO(), is_terminal=False, color=False, unicode=True, width=80)
ASCII = Terminal(io.StringIO(), is_terminal=False, color=False, unicode=False, width=80)

DIAMOND = {
    "end": Node("end", "join@1.0.0", ("left", "right")),
    "left": Node("left", "work", ("start",)),
    "right": Node("right", 'odd "agent"', ("start",), conditional=True),
    "start": Node("start", "work", ()),
}


@st.composite
def dags(draw: st.DrawFn) -> dict[str, Node]:
    """A DAG whose nodes come in any order."""
    count = draw(st.integers(0, 12))
    edges = {
        index: draw(st.sets(st.integers(0, index - 1), max_size=4)) if index else set()
        for index in range(count)
    }
    order = draw(st.permutations(range(count)))
    return {
        f"s{index}": Node(f"s{index}", "a", tuple(f"s{other}" for other in sorted(edges[index])))
        for index in order
    }


@given(dags())
def test_every_step_stands_one_below_the_lowest_it_waits_for(nodes: dict[str, Node]) -> None:
    layers = levels(nodes)
    depth = {node.id: number for number, layer in enumerate(layers) for node in layer}
    assert depth.keys() == nodes.keys()
    for node in nodes.values():
        assert depth[node.id] == 1 + max((depth[other] for other in node.needs), default=-1)


def test_a_long_chain_needs_no_deep_stack() -> None:
    chain = {
        f"s{index}": Node(f"s{index}", "a", (f"s{index + 1}",) if index < 5_000 else ())
        for index in range(5_001)
    }
    assert len(levels(chain)) == 5_001


def test_text_shows_levels() -> None:
    assert as_text(DIAMOND, PIPE) == [
        "1  ● start  work",
        "   │",
        "2  ● left   work         ← start",
        '   ● right  odd "agent"  ← start  (when)',
        "   │",
        "3  ● end    join@1.0.0   ← left, right",
    ]


def test_text_is_plain_where_the_encoding_is() -> None:
    assert all(line.isascii() for line in as_text(DIAMOND, ASCII))


def test_dot_quotes_names() -> None:
    lines = as_dot('a "b"', DIAMOND)
    assert lines[0] == 'digraph "a \\"b\\"" {'
    assert '  "right" [label="right\\nodd \\"agent\\"", style=dashed];' in lines
    assert '  "left" -> "end";' in lines
    assert lines[-1] == "}"


def test_mermaid_ids_are_no_reserved_words() -> None:
    lines = as_mermaid(DIAMOND)
    assert '  step_end["end<br/>join@1.0.0"]' in lines
    assert '  step_right["right<br/>odd #quot;agent#quot;"]' in lines
    assert "  step_left --> step_end" in lines


def test_the_document_tells_levels_and_edges() -> None:
    document = as_document("w", "1.0.0", DIAMOND)
    assert [(step["id"], step["level"]) for step in document["steps"]] == [
        ("start", 1),
        ("left", 2),
        ("right", 2),
        ("end", 3),
    ]
    assert {"from": "start", "to": "left"} in document["edges"]
