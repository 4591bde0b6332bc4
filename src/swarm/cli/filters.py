"""Which runs are meant: the options that all commands on several runs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

from swarm.bootstrap.records import Records
from swarm.cli.arguments import RUN, WORKFLOW
from swarm.cli.moments import FORMS, MOMENT
from swarm.cli.pairs import parse_pairs
from swarm.packages.references import split_reference
from swarm.store.records import RunAttribute, RunFilter, RunState


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options said."""

    workflow: str | None = None
    states: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    parent: str | None = None
    is_all: bool = False

    @property
    def is_any(self) -> bool:
        """Whether nothing was asked for: every run is meant."""
        return self == Wanted()

    async def run_filter(self, records: Records, limit: int) -> RunFilter:
        """The filter for the store.

        Raises:
            NotFoundError: the caller is not there; InputError: a label or input without ``=``.
        """
        attributes = [
            RunAttribute("label", name, value)
            for name, value in parse_pairs(self.labels, "--label").items()
        ]
        attributes += [
            RunAttribute("input", name, value)
            for name, value in parse_pairs(self.inputs, "--input").items()
        ]
        parent = (await records.run(self.parent)).id if self.parent else None
        return RunFilter(
            workflow=split_reference(self.workflow)[0] if self.workflow else None,
            states=tuple(RunState(state) for state in self.states),
            attributes=tuple(attributes),
            created_after=self.since,
            created_before=self.until,
            parent_run_id=parent,
            called=self.is_all or parent is not None,
            limit=limit,
        )


_OPTIONS = (
    click.option("--workflow", type=WORKFLOW, help="Only runs of this workflow."),
    click.option(
        "--state",
        "states",
        multiple=True,
        type=click.Choice([str(state) for state in RunState]),
        help="Only runs in this state; may be given several times.",
    ),
    click.option(
        "--label",
        "labels",
        multiple=True,
        metavar="NAME=VALUE",
        help="Only runs with this label; may be given several times.",
    ),
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=VALUE",
        help="Only runs with this input, which their workflow lists under `search`; may be given "
        "several times.",
    ),
    click.option(
        "--since", type=MOMENT, metavar="WHEN", help=f"Only runs created since then: {FORMS}."
    ),
    click.option("--until", type=MOMENT, metavar="WHEN", help="Only runs created before then."),
)
_CALLED = (
    click.option("--parent", type=RUN, metavar="RUN", help="Only runs that this one called."),
    click.option("--all", "is_all", is_flag=True, help="Runs that other runs called, too."),
)


def filter_options(*, called: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options that make :class:`Wanted`, passed to it as ``wanted``.

    Args:
        called: whether runs that other runs called may be asked for.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in Wanted.__slots__ if name in kwargs}
            return function(*args, wanted=Wanted(**given), **kwargs)

        decorated: Callable[..., Any] = call
        for option in (*_OPTIONS, *(_CALLED if called else ()))[::-1]:
            decorated = option(decorated)
        return decorated

    return decorate
