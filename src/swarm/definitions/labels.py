"""What runs are found by: labels, short names with short values, and values of inputs."""

from __future__ import annotations

import re
from typing import Final

MAX_LABELS: Final = 32
"""Labels of one run."""
MAX_LABEL_NAME: Final = 64
"""Characters of a label's name."""
MAX_LABEL_VALUE: Final = 256
"""Characters of a label's value."""
MAX_SEARCH_INPUTS: Final = 16
"""Inputs of one workflow that its runs can be found by."""
MAX_SEARCH_VALUE: Final = 256
"""Characters of an input's value that count; what follows is cut off, in searches too."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?")


def label_name_fault(name: str) -> tuple[str, str] | None:
    """What is wrong with the name of a label, and the remedy; or None."""
    if len(name) > MAX_LABEL_NAME:
        shown = f"{name[:20]}..."
        return (
            f"the label's name `{shown}` is longer than {MAX_LABEL_NAME} characters",
            "shorten it",
        )
    if _NAME.fullmatch(name) is None:
        return (
            f"`{name}` cannot name a label (letters, digits, and . _ - / inside)",
            "write a name such as team or app/tier",
        )
    return None


def label_value_fault(name: str, value: str) -> tuple[str, str] | None:
    """What is wrong with the value of the label ``name``, and the remedy; or None."""
    if len(value) > MAX_LABEL_VALUE:
        return (
            f"the label `{name}` has {len(value)} characters; at most {MAX_LABEL_VALUE} are kept",
            "shorten it, or make it an input",
        )
    return None
