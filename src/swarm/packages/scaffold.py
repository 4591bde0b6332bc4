"""New packages and workflows, copied from the catalog's templates under a new name."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from swarm.definitions.fields import Name
from swarm.kernel.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from swarm.packages.builtin import catalog_root
from swarm.packages.ignoring import Ignored
from swarm.packages.package import MANIFEST

WORKFLOW_FILE = "workflow.yaml"
TemplateKind = Literal["agent", "workflow"]

_MANIFESTS: dict[TemplateKind, str] = {"agent": MANIFEST, "workflow": WORKFLOW_FILE}
_NAME = TypeAdapter(Name)
_PLAIN = re.compile(r"[a-z].*")


@dataclass(frozen=True, slots=True)
class Template:
    """Something to start from."""

    name: str
    kind: TemplateKind
    description: str
    folder: Path


def list_templates(kind: TemplateKind | None = None) -> list[Template]:
    """The templates of one kind, or all, by name."""
    found: list[Template] = []
    for folder in sorted((catalog_root() / "templates").iterdir()):
        for of_kind, file in _MANIFESTS.items():
            manifest = folder / file
            if kind in (None, of_kind) and manifest.is_file():
                described = yaml.safe_load(manifest.read_text("utf-8")).get("description", "")
                found.append(Template(folder.name, of_kind, described, folder))
    return found


def create_agent(name: str, template: str, into: Path) -> Path:
    """Make the folder ``into/<name>`` with a copy of an agent template, called ``name``.

    Returns:
        The new folder.

    Raises:
        InvalidError: ``name`` cannot be an agent's name; NotFoundError: no such template;
        ConflictError: the folder is there already; UnavailableError: it cannot be written.
    """
    return _create(name, template, into, "agent")


def create_workflow(name: str, template: str, into: Path) -> Path:
    """Make the folder ``into/<name>`` with a copy of a workflow template; as create_agent."""
    return _create(name, template, into, "workflow")


def rename_manifest(text: str, name: str) -> str:
    """``text`` with the value of its top-level ``name`` replaced; everything else stays as it is.

    Raises:
        InvalidError: there is no top-level ``name`` with a plain value.
    """
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(document, yaml.MappingNode):
        for key, value in document.value:
            if key.value == "name" and isinstance(value, yaml.ScalarNode):
                start, end = value.start_mark.index, value.end_mark.index
                # A block scalar ends with its last line break, which stays.
                end = start + len(text[start:end].rstrip())
                return f"{text[:start]}{_as_scalar(name)}{text[end:]}"
    raise InvalidError("the template's manifest has no top-level `name`")


def _as_scalar(name: str) -> str:
    """``name`` as YAML text: quoted where some reader takes it for something else (``1e3``)."""
    return name if _PLAIN.fullmatch(name) and yaml.safe_load(name) == name else f'"{name}"'


def make_folder(kind: TemplateKind, name: str, into: Path, fill: Callable[[Path], None]) -> Path:
    """Make the folder ``into/<name>`` as a whole, or not at all; ``fill`` writes what it holds.

    Returns:
        The new folder.

    Raises:
        InvalidError: ``name`` cannot be that of a ``kind``; ConflictError: the folder is there
        already; UnavailableError: it cannot be written.
    """
    try:
        _NAME.validate_python(name)
    except ValidationError:
        raise InvalidError(
            f"`{name}` cannot be the name of {'an' if kind == 'agent' else 'a'} {kind}",
            remedy="use lower-case letters, digits, `-`, `_` and `.`, 64 at most, and begin and"
            " end with a letter or digit",
        ) from None
    target = into / name
    if os.path.lexists(target):
        raise _occupied(target)
    try:
        into.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=into))
        try:
            fill(partial)
            partial.chmod(0o755)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        if os.path.lexists(target):
            raise _occupied(target) from None
        raise UnavailableError(
            f"it cannot be written: {error.strerror}",
            where=str(error.filename or target),
            remedy="choose a folder that you may write",
        ) from None
    return target


def _create(name: str, template: str, into: Path, kind: TemplateKind) -> Path:
    templates = {one.name: one for one in list_templates(kind)}

    def fill(folder: Path) -> None:
        _copy(templates[template].folder, folder, _MANIFESTS[kind], name)

    if template not in templates:
        raise NotFoundError(
            f"there is no {kind} template `{template}`",
            name=template,
            known=templates,
            remedy=f"the templates are {', '.join(templates)}",
        )
    return make_folder(kind, name, into, fill)


def _copy(source: Path, target: Path, manifest: str, name: str) -> None:
    ignored = Ignored()

    def left_out(folder: str, names: list[str]) -> set[str]:
        base = Path(folder).relative_to(source)
        return {one for one in names if ignored.leaves_out((base / one).as_posix())}

    # Not the modes of the installation, which may be read-only: what is copied is to be edited.
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=left_out, copy_function=_copy_file)
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o755)
    file = target / manifest
    file.write_text(rename_manifest(file.read_text("utf-8"), name), "utf-8")


def _copy_file(source: str, target: str) -> str:
    shutil.copyfile(source, target)
    executable = Path(source).stat().st_mode & 0o100
    Path(target).chmod(0o755 if executable else 0o644)
    return target


def _occupied(target: Path) -> ConflictError:
    return ConflictError(
        "it is there already; nothing was changed",
        where=str(target),
        remedy="choose another name or folder, or remove it",
    )
