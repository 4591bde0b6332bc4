"""The live view: a run's steps, redrawn in place. Loaded only for terminals (it imports rich)."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from swarm.cli.render.progress import FINAL, RunView, StepView, visible
from swarm.cli.render.values import STATE_COLORS, duration, elapsed_ms, plural
from swarm.cli.render.waits import Wait
from swarm.cli.terminal import Terminal, clean
from swarm.engine.events import RunEvent
from swarm.kernel.clock import now_text

REFRESHES_PER_SECOND = 8
SYMBOLS = {
    "succeeded": ("✓", "+"),
    "failed": ("✗", "x"),
    "cancelled": ("■", "#"),
    "skipped": ("-", "-"),
    "waiting": ("…", "~"),
    "pending": ("·", "."),
    "running": ("▶", ">"),
}
WIDE_ENOUGH_FOR_BARS = 80
"""Columns of a terminal from which on progress bars are drawn."""
SPARE_ROWS = 4
"""Rows of the terminal left free: the heading, and what is above."""


class LiveDisplay:
    """Redraws the steps of a run in place until it ends; its last state stays on the screen."""

    def __init__(self, view: RunView, terminal: Terminal) -> None:
        self.view = view
        self._terminal = terminal
        self._console = Console(
            file=terminal.stream,
            force_terminal=True,
            no_color=not terminal.color,
            highlight=False,
            emoji=False,
            markup=False,
        )
        self._begun = time.monotonic()
        self._spinner = Spinner("dots" if terminal.unicode else "line", style="cyan")
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=REFRESHES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, event: RunEvent) -> None:
        self.view.apply(event)
        if event.kind == "step.waiting":
            self._tell_how_to_answer(Wait.of_event(event))
        elif event.kind == "notify":
            self.note(f"{event.data.get('level')}: {clean(str(event.data.get('message')))}")

    def note(self, message: str) -> None:
        # Not wrapped in the middle of words: commands are there to be copied.
        self._console.print(message, soft_wrap=True)

    def _tell_how_to_answer(self, wait: Wait) -> None:
        """Print the commands above the view, where they can be copied from."""
        if commands := wait.commands():
            self.note(clean(f"step {wait.step_id} waits for {wait}"))
            for command in commands:
                self.note(f"  {clean(command)}")

    def _draw(self) -> RenderableType:
        view = self.view
        elapsed = duration((time.monotonic() - self._begun) * 1000)
        done = view.count(*FINAL)
        heading = Text.assemble(
            (view.title, "bold"),
            f"  {view.run_id}  ",
            (view.status, STATE_COLORS.get(view.status, "")),
            f"  {done}/{plural(len(view.steps), 'step')}  {elapsed}",
            overflow="ellipsis",
            no_wrap=True,
        )
        rows, hidden = visible(view, max(self._console.size.height - SPARE_ROWS, 3))
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for step in rows:
            table.add_row(*self._row(step))
        parts: list[RenderableType] = [heading, table]
        if hidden:
            parts.append(Text(f"  and {plural(hidden, 'more step')}", style="bright_black"))
        return Group(*parts)

    def _row(self, step: StepView) -> tuple[RenderableType, ...]:
        color = STATE_COLORS.get(step.state, "")
        symbol: RenderableType = Text(self._symbol(step.state), style=color)
        milliseconds = step.duration_ms
        if step.state == "running":
            symbol = self._spinner
            milliseconds = elapsed_ms(step.started_at, now_text())
        state = f"{step.state} ({step.attempt})" if step.attempt > 1 else step.state
        return (
            symbol,
            Text(clean(step.id)),
            Text(state, style=color),
            Text(duration(milliseconds)),
            self._detail(step),
        )

    def _detail(self, step: StepView) -> RenderableType:
        if step.error:
            return Text(clean(step.error).replace("\n", " "), style="red")
        message = Text(clean(step.message).replace("\n", " "), style="bright_black")
        if step.state in FINAL:
            return Text("")
        if step.state != "running" or step.fraction is None:
            return message
        percentage = f"{step.fraction * 100:.0f}%"
        if self._console.width < WIDE_ENOUGH_FOR_BARS:
            return Text.assemble(percentage, " ", message, overflow="ellipsis", no_wrap=True)
        row = Table.grid(padding=(0, 1))
        row.add_column(width=16)
        row.add_column(width=4, justify="right")
        row.add_column(no_wrap=True, overflow="ellipsis")
        row.add_row(ProgressBar(total=1.0, completed=step.fraction, width=16), percentage, message)
        return row

    def _symbol(self, state: str) -> str:
        return self._terminal.symbol(*SYMBOLS.get(state, ("?", "?")))
