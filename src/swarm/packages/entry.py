"""Whether the entry that a manifest names is there, found without running any package code."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass

from swarm.definitions.agent import AgentDefinition
from swarm.kernel.errors import nearest_names
from swarm.kernel.settings import Settings
from swarm.packages.package import Contents, read_checked
from swarm.sandbox.programs import find_visible

DEFAULT_HANDLER = "handler"
MAX_SOURCE_BYTES = 4 * 1024 * 1024
"""A larger Python file is not parsed; its handler is looked for when it is called."""


@dataclass(frozen=True, slots=True)
class EntryFault:
    """What is wrong with an entry. ``line`` is set when the fault lies in ``file`` of the package,
    not in the manifest."""

    message: str
    remedy: str
    file: str | None = None
    line: int | None = None


def entry_tuple(definition: AgentDefinition) -> tuple[str, ...]:
    """The entry as a sandbox takes it; see :class:`swarm.sandbox.ports.Program`."""
    entry = definition.runtime.entry
    return (entry,) if isinstance(entry, str) else tuple(entry)


def check_entry(
    definition: AgentDefinition, contents: Contents, settings: Settings
) -> EntryFault | None:
    """What keeps the entry from being started, or None when all is well as far as can be seen."""
    entry = entry_tuple(definition)
    if not entry or not entry[0]:
        return EntryFault("the entry is empty", "name the file or the command to start")
    if definition.runtime.type == "command":
        return _check_command(entry[0], definition, contents, settings)
    if entry[0].startswith("/") or ".." in entry[0].split("/"):
        return EntryFault(
            f"the entry `{entry[0]}` does not lie in the package",
            "name a file of the package by its path within it, such as `main.py`",
        )
    if len(entry) != 1:
        return EntryFault(
            f"the entry of a {definition.runtime.type} agent is one string, not a list",
            "write it as a string; only a `command` takes a list of arguments",
        )
    if definition.runtime.type == "node":
        return _check_file(entry[0].removeprefix("./"), contents)
    return _check_python(entry[0], contents)


def _paths(contents: Contents) -> list[str]:
    return [file.path for file in contents.files]


def _check_file(path: str, contents: Contents) -> EntryFault | None:
    paths = _paths(contents)
    if path in paths:
        return None
    return EntryFault(
        f"the entry `{path}` is not a file of the package",
        _offer(path, paths) or f"create `{path}`, or name the file that exports `handler`",
    )


def _check_command(
    program: str, definition: AgentDefinition, contents: Contents, settings: Settings
) -> EntryFault | None:
    if "/" not in program:
        if program in definition.runtime.requires or find_visible(program, settings):
            return None
        return EntryFault(
            f"the entry's program `{program}` is not on this host, below /usr",
            f"install it below /usr, list it in `runtime.requires`, or write `./{program}` for a"
            " file of the package; arguments stand in a list, one by one",
        )
    if program.startswith("/"):
        return EntryFault(
            f"the entry `{program}` is an absolute path, which other machines may not have",
            "write the program's bare name, or a path within the package such as `./run.sh`",
        )
    if ".." in program.split("/"):
        return EntryFault(
            f"the entry `{program}` does not lie in the package",
            "name a file of the package by its path within it, such as `./run.sh`",
        )
    path = program.removeprefix("./")
    found = {file.path: file for file in contents.files}.get(path)
    if found is None:
        return EntryFault(
            f"the entry `{program}` is not a file of the package",
            _offer(path, _paths(contents)) or f"create `{path}` and make it executable",
        )
    if not found.executable:
        return EntryFault(
            f"the entry `{program}` is not executable",
            f"run `chmod +x {path}`, or start it by its interpreter",
        )
    return None


def _check_python(entry: str, contents: Contents) -> EntryFault | None:
    module, colon, name = entry.partition(":")
    if colon:
        if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
            return EntryFault(
                f"the entry `{entry}` is not of the form `module:function`",
                "write the module with dots and without `.py`, such as `agent.main:handler`",
            )
        base = module.replace(".", "/")
        candidates = [f"{base}.py", f"{base}/__init__.py"]
    else:
        name = DEFAULT_HANDLER
        candidates = [entry.removeprefix("./")]
    paths = _paths(contents)
    path = next((candidate for candidate in candidates if candidate in paths), None)
    if path is None:
        return EntryFault(
            f"the entry `{entry}` needs the file `{candidates[0]}`, which the package lacks",
            _offer(candidates[0], paths) or f"create `{candidates[0]}` with a `{name}` in it",
        )
    return _check_name(path, name.split(".")[0], contents)


def _check_name(path: str, name: str, contents: Contents) -> EntryFault | None:
    """Whether a Python file parses and binds ``name`` at its top level."""
    source = read_checked(contents, path)
    if len(source) > MAX_SOURCE_BYTES:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source, filename=path)
    except SyntaxError as error:
        return EntryFault(f"not valid Python: {error.msg}", "mend the line", path, error.lineno)
    except (ValueError, RecursionError, MemoryError) as error:
        return EntryFault(f"not valid Python: {error}", "mend the file", path, 1)
    bound = _bound_names(tree.body)
    if name in bound or "*" in bound or "__getattr__" in bound:
        return None
    functions = [node.name for node in tree.body if isinstance(node, _FUNCTIONS)]
    nearest = nearest_names(name, bound) or tuple(
        function for function in functions if not function.startswith("_")
    )
    offered = " or ".join(f"`{path.removesuffix('.py').replace('/', '.')}:{n}`" for n in nearest)
    remedy = f"define `{name}` in `{path}`"
    return EntryFault(
        f"the entry's file `{path}` has no `{name}`",
        f"{remedy}, or write {offered} as the entry" if offered else remedy,
    )


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _bound_names(body: list[ast.stmt]) -> set[str]:
    """Names that statements bind in their own scope; ``*`` for an import of everything."""
    bound: set[str] = set()
    pending: list[ast.AST] = list(body)
    while pending:
        node = pending.pop()
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(alias.asname or alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp):
            pending.extend(ast.iter_child_nodes(node))
    return bound


def _offer(path: str, paths: list[str]) -> str | None:
    nearest = nearest_names(path, paths)
    return f"did you mean {' or '.join(f'`{name}`' for name in nearest)}?" if nearest else None
