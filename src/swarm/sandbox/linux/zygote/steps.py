"""Which layer is being built, so that a refusal by the kernel can be told as such."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


class LayerError(Exception):
    """The kernel refused a layer. ``code`` is the errno, or 0 where there is none."""

    def __init__(self, layer: str, code: int, detail: str) -> None:
        super().__init__(f"{layer}: {detail}")
        self.layer = layer
        self.code = code
        self.detail = detail

    def as_json(self) -> dict[str, object]:
        return {"event": "failed", "layer": self.layer, "errno": self.code, "detail": self.detail}


@contextmanager
def layer(name: str) -> Iterator[None]:
    """Turn an OSError within into a LayerError of ``name``."""
    try:
        yield
    except OSError as error:
        subject = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        raise LayerError(name, error.errno or 0, f"{error.strerror}{subject}") from None
