"""A run's Gantt chart as one SVG file that needs nothing else: no scripts, fonts or links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from swarm.cli.render.timeline import MARKS, row_label
from swarm.cli.render.values import duration, local_time
from swarm.engine.timeline import Row, Timeline, tick_text, ticks
from swarm.store.records import RunRecord

ROW = 24
BAR = 14
TOP = 74
BOTTOM = 26
LEGEND_ROW = 20
SIDE = 16
CHARACTER = 7.2
"""Width of a character of a label, in pixels: that of common fonts at 12 pixels."""
LONGEST_LABEL = 34
TOOK = 84
TICK_PIXELS = 90
SMALLEST_WIDTH = 480
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot hold (section 2.2)."""
STYLE = """
svg { --page: #ffffff; --ink: #1f2328; --faint: #656d76; --line: #d8dee4; --band: #f6f8fa;
  --attempt: #2da44e; --failed: #cf222e; --running: #0a7ea4; --pause: #afb8c1; --wait: #bf8fef;
  --call: #4f83e0; --items: #8c959f; --reused: #bf8700; --critical: #d1570a; }
@media (prefers-color-scheme: dark) {
  svg { --page: #0d1117; --ink: #e6edf3; --faint: #8d96a0; --line: #30363d; --band: #161b22;
    --attempt: #3fb950; --failed: #f85149; --running: #39c5cf; --pause: #484f58; --wait: #a371f7;
    --call: #6ca4f8; --items: #7d8590; --reused: #d29922; --critical: #f0883e; } }
text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  fill: var(--ink); }
.title { font-size: 15px; font-weight: 600; }
.faint { fill: var(--faint); }
.critical { font-weight: 600; fill: var(--critical); }
.grid { stroke: var(--line); }
.page { fill: var(--page); }
.band { fill: var(--band); }
""" + "\n".join(f".{kind} {{ fill: var(--{kind}); }}" for kind in MARKS)


def timeline_svg(timeline: Timeline, run: RunRecord, width: int) -> str:
    """The chart as the text of an SVG document, ``width`` pixels wide."""
    width = max(width, SMALLEST_WIDTH)
    labels = [_cut(row_label(row)) for row in timeline.rows]
    room = max((_label_width(label) for label in labels), default=0.0)
    left = SIDE + min(room, width * 0.35) + 14
    right = width - SIDE - TOOK
    bottom = TOP + len(timeline.rows) * ROW
    legend, depth = _legend(timeline, bottom + BOTTOM, width)
    height = bottom + BOTTOM + depth
    title = f"{run.workflow_name}@{run.workflow_version}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-labelledby="title about">',
        f'<title id="title">{_text(f"Timeline of run {run.id} of {title}")}</title>',
        f'<desc id="about">{_text(_description(timeline, run))}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}" rx="6"/>',
        f'<text class="title" x="{SIDE}" y="26">{_text(title)}</text>',
        f'<text class="faint" x="{SIDE}" y="44">{_text(_subtitle(timeline, run))}</text>',
        *_bands(timeline, width),
        *_grid(timeline, left, right, bottom),
    ]
    for index, (row, label) in enumerate(zip(timeline.rows, labels, strict=True)):
        parts += _row(row, label, timeline.seconds, TOP + index * ROW, left, right)
    return "\n".join([*parts, *legend, "</svg>\n"])


def _subtitle(timeline: Timeline, run: RunRecord) -> str:
    took = duration(timeline.seconds * 1000)
    return f"{run.id} · {run.status} · {local_time(timeline.begins)} · {took}"


def _description(timeline: Timeline, run: RunRecord) -> str:
    """The chart in words, for those who cannot see it."""
    critical = [row.step_id for row in timeline.rows if row.is_critical]
    return (
        f"The run {run.status} after {duration(timeline.seconds * 1000)}. "
        f"Critical path: {', '.join(critical) or 'nothing ran'}."
    )


def _bands(timeline: Timeline, width: int) -> Iterator[str]:
    for index in range(0, len(timeline.rows), 2):
        y = TOP + index * ROW
        yield f'<rect class="band" x="8" y="{y}" width="{width - 16}" height="{ROW}" rx="3"/>'


def _grid(timeline: Timeline, left: float, right: float, bottom: int) -> Iterator[str]:
    for moment in ticks(timeline.seconds, int((right - left) / TICK_PIXELS)):
        x = left + moment / timeline.seconds * (right - left)
        yield f'<line class="grid" x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}"/>'
        anchor = "start" if moment == 0 else "middle"
        yield (
            f'<text class="faint" x="{x:.1f}" y="{TOP - 11}" text-anchor="{anchor}">'
            f"{tick_text(moment)}</text>"
        )


def _row(
    row: Row, label: str, seconds: float, top: int, left: float, right: float
) -> Iterator[str]:
    middle = top + ROW / 2 + 4
    kind = "critical" if row.is_critical else "faint" if row.folded else "ink"
    indent = 12 if label.startswith("  ") else 0
    marked = f"★ {label}" if row.is_critical else label.strip()
    yield f'<text class="{kind}" x="{SIDE + indent}" y="{middle}">{_text(marked)}</text>'
    scale = (right - left) / seconds
    for span in row.spans:
        x = left + span.start * scale
        length = max((span.end - span.start) * scale, 2.0)
        x = min(x, right - 2)
        is_thin = span.kind in ("pause", "items")
        bar = 4 if is_thin else BAR
        y = top + (ROW - bar) / 2
        about = (
            f"{label.strip()}: {MARKS[span.kind][2]}, {duration((span.end - span.start) * 1000)}"
        )
        about += f", {span.about}" if span.about else ""
        yield (
            f'<rect class="{span.kind}" x="{x:.1f}" y="{y:g}" width="{length:.1f}" '
            f'height="{bar}" rx="2"><title>{_text(about)}</title></rect>'
        )
    if row.start is None or row.end is None:
        took = row.state
    else:
        took = "" if row.spans[0].kind == "reused" else duration((row.end - row.start) * 1000)
    yield f'<text class="faint" x="{right + 10:.1f}" y="{middle}">{_text(took)}</text>'


def _legend(timeline: Timeline, top: int, width: int) -> tuple[list[str], int]:
    """What the colours mean, as far as they are used, and how many pixels high that is."""
    used = {span.kind for row in timeline.rows for span in row.spans}
    entries = [(str(kind), text) for kind, (_, _, text) in MARKS.items() if kind in used]
    parts: list[str] = []
    x, y = float(SIDE), top
    for kind, text in [*entries, ("", "★ critical path")]:
        length = 15 + _label_width(text)
        if x > SIDE and x + length > width - SIDE:
            x, y = float(SIDE), y + LEGEND_ROW
        if kind:
            parts += [
                f'<rect class="{kind}" x="{x:.1f}" y="{y - 9}" width="10" height="10" rx="2"/>',
                f'<text class="faint" x="{x + 15:.1f}" y="{y}">{_text(text)}</text>',
            ]
        else:
            parts.append(f'<text class="critical" x="{x:.1f}" y="{y}">{_text(text)}</text>')
        x += length + 8
    return parts, y - top + LEGEND_ROW


def _label_width(label: str) -> float:
    return (len(label) + 2) * CHARACTER


def _cut(label: str) -> str:
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def _text(text: str) -> str:
    return escape(_FORBIDDEN.sub("\ufffd", text))
