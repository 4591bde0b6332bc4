"""Write deploy/kubernetes.yaml: the chart with its default values, for who has no Helm.

usage: python scripts/render_chart.py

Needs Helm, or what `make test-deploy` makes: a small program around the two libraries that Helm
renders with. The page says which chart it is of, so that a test finds it stale without either.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "swarm"
PAGE = ROOT / "deploy" / "kubernetes.yaml"
RENDERER = ROOT / ".cache" / "deploy" / "bin" / "render-chart"
RELEASE, NAMESPACE = "swarm", "swarm"


def digest() -> str:
    """Of all files of the chart."""
    made = hashlib.sha256()
    for path in sorted(path for path in CHART.rglob("*") if path.is_file()):
        content = path.read_bytes()
        made.update(f"{path.relative_to(CHART)} {len(content)}\n".encode())
        made.update(content)
    return made.hexdigest()


def head() -> str:
    """What the page begins with."""
    return (
        "# The chart in deploy/helm/swarm with its default values, for the namespace `swarm`.\n"
        "# Written by `python scripts/render_chart.py`; change the chart, not this file.\n"
        f"# chart: sha256:{digest()}\n"
    )


def command(*values: Path) -> list[str] | None:
    """What renders the chart with these files of values; None where nothing here can."""
    if helm := shutil.which("helm"):
        options = [text for path in values for text in ("--values", str(path))]
        return [helm, "template", RELEASE, str(CHART), "--namespace", NAMESPACE, *options]
    if RENDERER.exists():
        return [str(RENDERER), str(CHART), RELEASE, NAMESPACE, *map(str, values)]
    return None


def main() -> int:
    rendering = command()
    if rendering is None:
        print("Helm is missing: install it, or run `make test-deploy` first", file=sys.stderr)
        return 5
    done = subprocess.run(rendering, stdout=subprocess.PIPE, text=True, check=True)
    PAGE.write_text(head() + done.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
