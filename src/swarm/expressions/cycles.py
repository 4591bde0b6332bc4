"""Finds cycles in what waits for what."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

_SHOWN_NODES: Final = 20


def find_cycles(graph: Mapping[str, Collection[str]]) -> list[tuple[str, ...]]:
    """Cycles of a graph, at least one of each knot; each begins with its first node in order.

    A depth-first search, without recursion: an edge to a node that is still open closes a cycle.

    Args:
        graph: what each node waits for; nodes that are no keys are passed over.
    """
    order = {node: index for index, node in enumerate(graph)}
    done: set[str] = set()
    found: dict[frozenset[str], tuple[str, ...]] = {}
    for root in graph:
        path: list[str] = []
        depths: dict[str, int] = {}
        pending: list[tuple[str, bool]] = [(root, False)]
        while pending:
            node, is_left = pending.pop()
            if is_left:
                done.add(path.pop())
                del depths[node]
                continue
            if node in done or node not in graph:
                continue
            if node in depths:
                cycle = path[depths[node] :]
                first = min(range(len(cycle)), key=lambda index: order[cycle[index]])
                found.setdefault(frozenset(cycle), (*cycle[first:], *cycle[:first]))
                continue
            depths[node] = len(path)
            path.append(node)
            pending.append((node, True))
            pending += [(each, False) for each in sorted(graph[node], reverse=True)]
    return sorted(found.values(), key=lambda cycle: order[cycle[0]])


def shown_cycle(cycle: tuple[str, ...]) -> str:
    """``a -> b -> a``; each waits for the next. Of a long one, the begin and the end."""
    if len(cycle) > _SHOWN_NODES:
        left_out = len(cycle) - _SHOWN_NODES
        half = _SHOWN_NODES // 2
        cycle = (*cycle[:half], f"... ({left_out} more)", *cycle[-half:])
    return " -> ".join((*cycle, cycle[0]))
