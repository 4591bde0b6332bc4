"""A workflow's DAG as text: for the terminal by levels, for Graphviz, Mermaid and machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from swarm.cli.terminal import Terminal, cell_width, clean
from swarm.kernel.json import JsonObject, JsonValue


@dataclass(frozen=True, slots=True)
class Node:
    """One step: what it calls and what it waits for."""

    id: str
    target: str
    """The agent or workflow that it calls, or what it waits for."""
    needs: tuple[str, ...]
    """The steps that it waits for; the one whose failure it handles is among them."""
    conditional: bool = False
    """Whether it has a ``when``."""
    kind: Literal["agent", "workflow", "wait", "notify"] = "agent"
    per_item: bool = False
    """Whether it runs for each item of ``for_each``."""
    handles: str | None = None
    """The step whose failure it handles."""

    @property
    def title(self) -> str:
        """What it does, for people."""
        return self.target if self.kind == "agent" else f"{self.kind}: {self.target}"

    @property
    def remarks(self) -> list[str]:
        """What is special about it, for people."""
        remarks = [f"if {self.handles} fails"] if self.handles is not None else []
        if self.per_item:
            remarks.append("for each item")
        if self.conditional:
            remarks.append("when")
        return remarks

    def document(self) -> JsonObject:
        """What it is, for machines."""
        return {
            "id": self.id,
            **dict.fromkeys(("agent", "workflow", "wait")),
            self.kind: self.target,
            "needs": list(self.needs),
            "conditional": self.conditional,
            "for_each": self.per_item,
            "handles": self.handles,
        }


Actions = Mapping[str, Sequence[Node]]
"""What is done once the steps are done, in order, by the list that it belongs to."""


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
    """The DAG by levels, each step with what it does and what it waits for."""
    layers = levels(nodes)
    dot, bar, arrow = (
        terminal.symbol("●", "o"),
        terminal.symbol("│", "|"),
        terminal.symbol("←", "<-"),
    )
    id_width = max((cell_width(node.id) for node in nodes.values()), default=0)
    title_width = max((cell_width(clean(node.title)) for node in nodes.values()), default=0)
    number_width = len(str(len(layers)))
    lines: list[str] = []
    for number, layer in enumerate(layers, start=1):
        if lines:
            lines.append(f"{'':{number_width}}  {terminal.style(bar, 'dim')}")
        for index, node in enumerate(layer):
            label = str(number) if index == 0 else ""
            title = clean(node.title)
            parts = [
                f"{label:>{number_width}}  {terminal.style(dot, 'cyan')} ",
                terminal.style(node.id, bold=True) + " " * (id_width - cell_width(node.id)),
                "  ",
                title + " " * (title_width - cell_width(title)),
            ]
            if node.needs:
                parts.append(terminal.style(f"  {arrow} {', '.join(node.needs)}", "dim"))
            if node.remarks:
                parts.append(terminal.style(f"  ({', '.join(node.remarks)})", "yellow"))
            lines.append("".join(parts).rstrip())
    return lines


def actions_as_text(actions: Actions, terminal: Terminal) -> list[str]:
    """What is done once the steps are done, list by list."""
    lines: list[str] = []
    for name, nodes in actions.items():
        lines += ["", terminal.style(name, bold=True)]
        for number, node in enumerate(nodes, start=1):
            named = "" if node.kind == "notify" else f"{terminal.style(node.id, bold=True)}  "
            line = f"{number}  {named}{clean(node.title)}"
            if node.remarks:
                line += terminal.style(f"  ({', '.join(node.remarks)})", "yellow")
            lines.append(line)
    return lines


def as_dot(name: str, nodes: Mapping[str, Node], actions: Actions | None = None) -> list[str]:
    """The DAG in Graphviz's language."""
    lines = [f"digraph {_quoted(name)} {{", "  rankdir=LR;", "  node [shape=box];"]
    lines += [f"  {_dot_node(node)}" for node in nodes.values()]
    for other, node in _edges(nodes.values()):
        style = ' [label="fails", style=dashed]' if node.handles == other else ""
        lines.append(f"  {_quoted(other)} -> {_quoted(node.id)}{style};")
    for list_name, listed in (actions or {}).items():
        lines += [f"  subgraph {_quoted(f'cluster_{list_name}')} {{"]
        lines += [f"    label={_quoted(list_name)};"]
        lines += [f"    {_dot_node(node)}" for node in listed]
        for before, node in pairwise(listed):
            lines.append(f"    {_quoted(before.id)} -> {_quoted(node.id)};")
        lines.append("  }")
    return [*lines, "}"]


def _dot_node(node: Node) -> str:
    style = ", style=dashed" if node.conditional else ""
    each = ", peripheries=2" if node.per_item else ""
    label = f"{_escaped(node.id)}\\n{_escaped(node.title)}"
    return f'{_quoted(node.id)} [label="{label}"{style}{each}];'


def _edges(nodes: Iterable[Node]) -> list[tuple[str, Node]]:
    return [(other, node) for node in nodes for other in node.needs]


def as_mermaid(nodes: Mapping[str, Node], actions: Actions | None = None) -> list[str]:
    """The DAG in Mermaid's language. Ids are prefixed: Mermaid reserves words such as ``end``."""
    lines = ["flowchart LR", *(f"  {_mermaid_node(node)}" for node in nodes.values())]
    for other, node in _edges(nodes.values()):
        arrow = "-. fails .->" if node.handles == other else "-->"
        lines.append(f"  step_{other} {arrow} step_{node.id}")
    for name, listed in (actions or {}).items():
        lines.append(f"  subgraph {name}")
        lines += [f"    {_mermaid_node(node)}" for node in listed]
        lines += [f"    step_{before.id} --> step_{node.id}" for before, node in pairwise(listed)]
        lines.append("  end")
    return lines


def _mermaid_node(node: Node) -> str:
    title = node.title.replace('"', "#quot;")
    opening, closing = ("[[", "]]") if node.per_item else ("[", "]")
    return f'step_{node.id}{opening}"{node.id}<br/>{title}"{closing}'


def as_document(
    name: str, version: str, nodes: Mapping[str, Node], actions: Actions | None = None
) -> JsonObject:
    """The DAG for machines: steps with their levels, edges, and actions."""
    listed: JsonObject = {}
    for list_name, each in (actions or {}).items():
        listed[list_name] = [_action_document(node) for node in each]
    return {
        "workflow": name,
        "version": version,
        "steps": [
            {**node.document(), "level": level}
            for level, layer in enumerate(levels(nodes), start=1)
            for node in layer
        ],
        "edges": [{"from": other, "to": node.id} for other, node in _edges(nodes.values())],
        "actions": listed,
    }


def _action_document(node: Node) -> JsonValue:
    return {"notify": node.target} if node.kind == "notify" else {"step": node.document()}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'
