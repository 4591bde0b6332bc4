"""A run as plain lines, for pipes, logs and terminals that cannot redraw."""

from __future__ import annotations

from types import TracebackType

from swarm.cli.output import print_json_line
from swarm.cli.render.progress import FINAL, RunView
from swarm.cli.render.values import STATE_COLORS, duration, local_clock, local_time, plural
from swarm.cli.render.waits import Wait
from swarm.cli.terminal import Terminal, clean
from swarm.engine.events import RunEvent
from swarm.store.records import NO_ITEM

GRAVE = frozenset({"warning", "error", "critical"})
"""Levels of log lines that are shown unless all are asked for."""


TOLD_SHARES = 10
"""How often the progress of a step's items is told, in equal parts of them."""


class LineDisplay:
    """Writes a line for each thing that happens."""

    def __init__(self, view: RunView, terminal: Terminal, *, logs: bool, prefix: str = "") -> None:
        """
        Args:
            view: kept up to date with the events shown.
            terminal: where the lines go.
            logs: show all log lines, not only warnings and errors.
            prefix: put before each line, to tell runs apart.
        """
        self.view = view
        self._terminal = terminal
        self._logs = logs
        self._prefix = prefix
        self._width = max((len(name) for name in view.steps), default=0)

    def __enter__(self) -> LineDisplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._terminal.flush()

    def show(self, event: RunEvent) -> None:
        self.view.apply(event)
        text = self._text(event)
        if text:
            self._write(f"{local_clock(event.time)} {text}")

    def note(self, message: str) -> None:
        self._write(message)

    def _write(self, text: str) -> None:
        for line in text.split("\n"):
            self._terminal.line(self._prefix + line)
        self._terminal.flush()

    def _text(self, event: RunEvent) -> str | None:
        data = event.data
        match event.kind:
            case "run.started":
                verb = "resumed" if data.get("resumed") else "started"
                return f"run  {self.view.run_id} {verb}"
            case "run.waiting":
                until = f" until {local_time(data['wake_at'])}" if data.get("wake_at") else ""
                return f"run  {self.view.run_id} waits{until}"
            case "run.finished" if self._prefix:  # of a single run, the report tells it
                return f"run  {self._status(data)}"
            case "step.started":
                again = f" (attempt {data['attempt']})" if data.get("attempt", 1) > 1 else ""
                items = f" with {plural(data['items'], 'item')}" if "items" in data else ""
                called = f": {data['workflow']}, {data['run_id']}" if data.get("workflow") else ""
                return self._step(event, f"started{again}{items}{called}")
            case "step.retrying":
                delay = duration(1000 * float(data.get("delay_seconds") or 0))
                return self._step(event, f"failed, again in {delay}: {_line(data.get('error'))}")
            case "step.waiting":
                return self._step(event, waiting_text(Wait.of_event(event)))
            case "item.started" | "item.retrying" | "item.finished":
                return self._item(event)
            case "step.finished":
                return self._step(event, self._ending(data))
            case "log" if self._logs or data.get("level") in GRAVE:
                return self._step(event, f"{data.get('level')}: {_block(data.get('message'))}")
            case "notify":
                return f"note {data.get('level')}: {_line(data.get('message'))}"
        return None

    def _item(self, event: RunEvent) -> str | None:
        """A line for an item that failed, and for each tenth of the items; for all with the logs.

        A step may have thousands of items.
        """
        data = event.data
        step = self.view.steps[event.step_id or ""]
        item = f"item {data.get('index')} "
        if event.kind == "item.retrying":
            delay = duration(1000 * float(data.get("delay_seconds") or 0))
            return self._step(event, f"{item}failed, again in {delay}: {_line(data.get('error'))}")
        if event.kind == "item.started":
            return self._step(event, f"{item}started") if self._logs else None
        if self._logs or data.get("status") == "failed":
            return self._step(event, item + self._ending(data))
        if step.state in FINAL:  # it comes from the journal, after the end of its step
            return None
        share = max((step.items or 0) // TOLD_SHARES, 1)
        is_told = step.items is not None and step.items_ended % share == 0
        return self._step(event, step.items_text()) if is_told else None

    def _step(self, event: RunEvent, text: str) -> str:
        name = clean(event.step_id or "run")
        return f"step {name.ljust(self._width)}  {text}"

    def _status(self, data: dict[str, object]) -> str:
        status = str(data.get("status"))
        return self._terminal.style(status, STATE_COLORS.get(status))

    def _ending(self, data: dict[str, object]) -> str:
        text = self._status(data)
        milliseconds = data.get("duration_ms")
        if isinstance(milliseconds, int | float):
            text += f" in {duration(milliseconds)}"
        return f"{text}: {_line(data['error'])}" if data.get("error") else text


def waiting_text(wait: Wait) -> str:
    """What a step waits for, and below it the commands that answer it."""
    item = f"item {wait.item_index} " if wait.item_index != NO_ITEM else ""
    return "\n         | ".join(
        [f"{item}waits for {_line(str(wait))}", *map(clean, wait.commands())]
    )


class JsonLinesDisplay:
    """Writes each event as one JSON object on standard output, for machines."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        self._closed = False

    def __enter__(self) -> JsonLinesDisplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, event: RunEvent) -> None:
        self.view.apply(event)
        if self._closed:
            return
        try:
            print_json_line(event.as_json())
        except BrokenPipeError:
            # The reader has seen enough; the run was accepted and goes on to its end.
            self._closed = True

    def note(self, message: str) -> None: ...


class QuietDisplay:
    """Shows nothing, and keeps the view up to date."""

    def __init__(self, view: RunView, terminal: Terminal) -> None:
        self.view = view
        self._terminal = terminal

    def __enter__(self) -> QuietDisplay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, event: RunEvent) -> None:
        self.view.apply(event)

    def note(self, message: str) -> None:
        self._terminal.line(message)
        self._terminal.flush()


def _block(value: object) -> str:
    """A message of several lines, such as a traceback, those after the first set off."""
    return "\n         | ".join(clean(str(value)).splitlines())


def _line(value: object) -> str:
    """A message on one line; the remedy of an error is left to the report at the end."""
    text = str(value).partition("\n  remedy: ")[0]
    return " / ".join(clean(text).splitlines())
