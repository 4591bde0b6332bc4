"""LangGraph with its SQLite checkpointer, `durability="sync"`: a checkpoint before each next step.

It keeps its database in WAL mode with SQLite's own `synchronous=FULL`.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
from typing import Annotated, Any, TypedDict

import work
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send


class Chain(TypedDict):
    value: int


class Fan(TypedDict):
    width: int
    values: Annotated[list[int], operator.add]
    joined: int


async def no_op(state: Chain) -> Chain:
    return {"value": state["value"] + 1}


async def fan_no_op(value: int) -> dict[str, Any]:
    return {"values": [value + 1]}


async def join(state: Fan) -> dict[str, Any]:
    return {"joined": len(state["values"])}


def chain_graph(steps: int) -> StateGraph:
    graph = StateGraph(Chain)
    for step in range(steps):
        graph.add_node(f"s{step}", no_op)
        graph.add_edge(START if step == 0 else f"s{step - 1}", f"s{step}")
    graph.add_edge(f"s{steps - 1}", END)
    return graph


def fan_graph() -> StateGraph:
    graph = StateGraph(Fan)
    graph.add_node("no_op", fan_no_op)
    graph.add_node("join", join)
    graph.add_conditional_edges(
        START, lambda state: [Send("no_op", value) for value in range(state["width"])], ["no_op"]
    )
    graph.add_edge("no_op", "join")
    graph.add_edge("join", END)
    return graph


class LangGraph:
    """See :class:`work.Engine`."""

    def __init__(self, saver: AsyncSqliteSaver) -> None:
        self._saver = saver
        self._chains: dict[int, Any] = {}
        self._fan = fan_graph().compile(saver)
        self._threads = itertools.count()

    async def chain(self, steps: int) -> int:
        if steps not in self._chains:
            self._chains[steps] = chain_graph(steps).compile(self._saver)
        ended = await self._invoke(self._chains[steps], {"value": 0}, steps)
        return int(ended["value"])

    async def fan(self, width: int) -> int:
        ended = await self._invoke(self._fan, {"width": width, "values": []}, 4)
        return int(ended["joined"])

    async def first_steps(self, count: int) -> list[float]:
        raise work.CannotBeMeasured("the library runs a graph in the caller's process only")

    async def _invoke(self, graph: Any, state: Any, steps: int) -> Any:
        config = {
            "configurable": {"thread_id": str(next(self._threads))},
            "recursion_limit": steps + 2,
        }
        return await graph.ainvoke(state, config, durability="sync")


async def main() -> None:
    folder, sizes, works, _ = work.arguments()
    async with AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.db")) as saver:
        await work.measure(LangGraph(saver), sizes, works)


if __name__ == "__main__":
    asyncio.run(main())
