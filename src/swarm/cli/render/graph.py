"""A workflow's DAG as text: for the terminal by levels, for Graphviz, Mermaid and machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm.cli.terminal import Terminal, cell_width, clean
from swarm.kernel.json import JsonObject


@dataclass(frozen=True, slots=True)
class Node:
    """One step: what it calls and what it waits for."""

    id: str
    agent: str
    needs: tuple[str, ...]
    conditional: bool = False
    """Whether it has a ``when``."""


def levels(nodes: Mapping[str, Node]) -> list[list[Node]]:
    """The steps by level: a step stands one below the lowest step that it waits for.

    ``nodes`` must be free of cycles. The order within a level is that of ``nodes``.
    """
    depth: dict[str, int] = {}

    def settle(name: str) -> None:
        """Set the depth of ``name`` and of all it waits for, without recursion."""
        stack = [name]
        while stack:
            node = nodes[stack[-1]]
            missing = [other for other in node.needs if other not in depth]
            if missing:
                stack.extend(missing)
                continue
            depth[node.id] = 1 + max((depth[other] for other in node.needs), default=-1)
            stack.pop()

    for name in nodes:
        if name not in depth:
            settle(name)
    result: list[list[Node]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name, node in nodes.items():
        result[depth[name]].append(node)
    return result


def as_text(nodes: Mapping[str, Node], terminal: Terminal) -> list[str]:
    """The DAG by levels, each step with its agent and what it waits for."""
    layers = levels(nodes)
    dot, bar, arrow = (
        terminal.symbol("●", "o"),
        terminal.symbol("│", "|"),
        terminal.symbol("←", "<-"),
    )
    id_width = max((cell_width(node.id) for node in nodes.values()), default=0)
    agent_width = max((cell_width(clean(node.agent)) for node in nodes.values()), default=0)
    number_width = len(str(len(layers)))
    lines: list[str] = []
    for number, layer in enumerate(layers, start=1):
        if lines:
            lines.append(f"{'':{number_width}}  {terminal.style(bar, 'dim')}")
        for index, node in enumerate(layer):
            label = str(number) if index == 0 else ""
            agent = clean(node.agent)
            parts = [
                f"{label:>{number_width}}  {terminal.style(dot, 'cyan')} ",
                terminal.style(node.id, bold=True) + " " * (id_width - cell_width(node.id)),
                "  ",
                agent + " " * (agent_width - cell_width(agent)),
            ]
            if node.needs:
                parts.append(terminal.style(f"  {arrow} {', '.join(node.needs)}", "dim"))
            if node.conditional:
                parts.append(terminal.style("  (when)", "yellow"))
            lines.append("".join(parts).rstrip())
    return lines


def as_dot(name: str, nodes: Mapping[str, Node]) -> list[str]:
    """The DAG in Graphviz's language."""
    lines = [f"digraph {_quoted(name)} {{", "  rankdir=LR;", "  node [shape=box];"]
    for node in nodes.values():
        style = ", style=dashed" if node.conditional else ""
        label = f"{_escaped(node.id)}\\n{_escaped(node.agent)}"
        lines.append(f'  {_quoted(node.id)} [label="{label}"{style}];')
    lines += [
        f"  {_quoted(other)} -> {_quoted(node.id)};"
        for node in nodes.values()
        for other in node.needs
    ]
    return [*lines, "}"]


def as_mermaid(nodes: Mapping[str, Node]) -> list[str]:
    """The DAG in Mermaid's language. Ids are prefixed: Mermaid reserves words such as ``end``."""
    lines = ["flowchart LR"]
    for node in nodes.values():
        agent = node.agent.replace('"', "#quot;")
        lines.append(f'  step_{node.id}["{node.id}<br/>{agent}"]')
    lines += [
        f"  step_{other} --> step_{node.id}" for node in nodes.values() for other in node.needs
    ]
    return lines


def as_document(name: str, version: str, nodes: Mapping[str, Node]) -> JsonObject:
    """The DAG for machines: steps with their levels, and edges."""
    return {
        "workflow": name,
        "version": version,
        "steps": [
            {
                "id": node.id,
                "agent": node.agent,
                "level": level,
                "needs": list(node.needs),
                "conditional": node.conditional,
            }
            for level, layer in enumerate(levels(nodes), start=1)
            for node in layer
        ],
        "edges": [
            {"from": other, "to": node.id} for node in nodes.values() for other in node.needs
        ],
    }


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'
