"""The sources obey the rules of the house; every rule is first shown to notice a break."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePath

import pytest

from tests.architecture import rules
from tests.architecture.rules import ROOT

CATALOG = ROOT / "src" / "swarm" / "catalog"
SOURCES = [path for path in rules.tracked_files(".py") if not path.is_relative_to(CATALOG)]
PRODUCT = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ("src", "scripts")]
OTHERS = [path for path in SOURCES if path not in PRODUCT]

LATE_LOADERS = {
    # The table of commands names modules as text and loads one when its command is called.
    "src/swarm/cli/lazy.py": frozenset({"load"}),
    # Whoever imports `swarm` pays for a public name only when it is used.
    "src/swarm/__init__.py": frozenset({"__getattr__"}),
    # Cryptography is loaded when the first stored secret is read; the keyring when it is chosen.
    "src/swarm/bootstrap/secrets.py": frozenset({"load_vault_maker"}),
    "src/swarm/vault/key_sources.py": frozenset({"load_keyring"}),
    # PostgreSQL's driver is an extra, loaded where the settings name such a database.
    "src/swarm/bootstrap/database.py": frozenset({"extra_module"}),
    "src/swarm/bootstrap/artifacts.py": frozenset({"open_bucket"}),
    # Inside a sandbox, an agent's own code is imported for the call.
    "src/swarm/sandbox/guest/handlers.py": frozenset({"load_handler"}),
    # Programs of their own, which import themselves as a package; the zygote also what it shares.
    "src/swarm/sandbox/guest/__main__.py": frozenset({"load"}),
    "src/swarm/sandbox/linux/zygote/__main__.py": frozenset({"load"}),
    "src/swarm/sandbox/linux/zygote/server.py": frozenset({"_load_guest", "_preload"}),
    "src/swarm/sandbox/microvm/agent/__main__.py": frozenset({"load"}),
    "src/swarm/sandbox/microvm/agent/handler.py": frozenset({"_load_guest", "_preload"}),
    # The catalog's packages have modules of the same names; each test loads those of one.
    "tests/integration/catalog/conftest.py": frozenset({"load_module"}),
    # Commands of tests are forked from a process that has loaded what commands load late.
    "tests/commands/forking.py": frozenset({"import_everything"}),
    # The hostile agent has one module for each kind of attack; its zygote weakens the product's.
    "tests/security/attacks/payloads/main.py": frozenset({"handler"}),
    "tests/security/attacks/weak_zygote/__main__.py": frozenset({"main"}),
}


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_there_are_sources() -> None:
    assert len(PRODUCT) > 20


def test_no_import_hides_in_a_function() -> None:
    found = [
        line
        for path in SOURCES
        for line in rules.hidden_imports(
            path.read_text(), place(path), LATE_LOADERS.get(place(path), frozenset())
        )
    ]
    assert found == []


@pytest.mark.parametrize(
    "sample",
    [
        "def f():\n    import json\n",
        "class A:\n    async def f(self):\n        if 1:\n            from a import b\n",
        "import importlib\nimportlib.import_module('x')\n",
        "def f():\n    return __import__('x')\n",
    ],
)
def test_a_hidden_import_is_noticed(sample: str) -> None:
    assert len(rules.hidden_imports(sample, "sample.py")) == 1


def test_late_import_is_allowed_where_it_is_sanctioned() -> None:
    sample = "def load():\n    importlib.import_module('x')\n"
    assert rules.hidden_imports(sample, "sample.py", frozenset({"load"})) == []


def test_files_and_functions_are_short() -> None:
    found = [
        line
        for path in PRODUCT
        for line in rules.oversized(
            path.read_text(), place(path), file_lines=500, function_lines=60
        )
    ]
    found += [
        line
        for path in OTHERS
        for line in rules.oversized(
            path.read_text(), place(path), file_lines=600, function_lines=80
        )
    ]
    assert found == []


def test_oversize_is_noticed() -> None:
    sample = "def f():\n" + "    a = 1\n" * 59
    assert len(rules.oversized(sample, "s.py", file_lines=100, function_lines=60)) == 1
    assert len(rules.oversized(sample, "s.py", file_lines=60, function_lines=61)) == 1
    assert rules.oversized(sample, "s.py", file_lines=61, function_lines=61) == []


def test_names_say_something() -> None:
    found = rules.junk_names(PurePath(place(path)) for path in rules.tracked_files())
    found += [
        line for path in SOURCES for line in rules.junk_classes(path.read_text(), place(path))
    ]
    assert found == []


def test_names_that_say_nothing_are_noticed() -> None:
    names = ["src/utils/a.py", "src/a_helpers.py", "src/common.py", "src/run_manager.py"]
    assert len(rules.junk_names(map(PurePath, names))) == 4
    assert rules.junk_names([PurePath("src/commons_licence.py")]) == []
    assert len(rules.junk_classes("class RunManager: ...", "s.py")) == 1


def test_tracked_files_speak_of_swarm_alone() -> None:
    found: list[str] = []
    for path in rules.tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += rules.private_facts(text, place(path))
    assert found == []


@pytest.mark.parametrize(
    "sample",
    [
        rules.MACHINE_PATHS[0] + "main",
        "https://" + rules.REGISTRY_HOSTS[0] + "/simple",
        "https://registry." + rules.REGISTRY_HOSTS[2],
        "see issue " + "12",
        "Fixes " + "#3",
    ],
)
def test_private_facts_are_noticed(sample: str) -> None:
    assert len(rules.private_facts(f"fine\n{sample}\n", "s.md")) == 1


def test_setup_needs_the_standard_library_only() -> None:
    """It runs before anything is installed."""
    for name in ("environment.py", "system_packages.py"):
        source = (ROOT / "scripts" / name).read_text()
        assert rules.foreign_imports(source, name) == []


def test_what_is_imported_is_declared() -> None:
    """The development environment holds more than users get; nothing may lean on that."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = rules.declared_modules(project["dependencies"])
    assert {"click", "yaml", "pydantic"} <= declared
    declared |= {"swarm", "pydantic_core"}  # the latter is pydantic's other half
    declared |= {""}  # relative: the guest and the zygote are packages of their own when they run
    extras = {
        ROOT / "src/swarm/store/postgres": "postgres",
        ROOT / "src/swarm/dispatch/fleet": "postgres",
        ROOT / "src/swarm/store/shared/s3.py": "s3",
    }

    def allowed(path: Path) -> frozenset[str]:
        names = [extra for root, extra in extras.items() if path.is_relative_to(root)]
        optional = project["optional-dependencies"]
        return declared.union(*(rules.declared_modules(optional[name]) for name in names))

    found = [
        line
        for path in PRODUCT
        if path.is_relative_to(ROOT / "src")
        for line in rules.foreign_imports(
            path.read_text(),
            place(path),
            allowed(path),
        )
    ]
    assert found == []


def test_only_what_is_named_is_declared() -> None:
    assert "pytest" in rules.declared_modules(["pytest>=8"])
    assert "click" not in rules.declared_modules(["pytest>=8"])


def test_foreign_imports_are_noticed() -> None:
    sample = "import json, yaml\nfrom swarm.kernel import json\nfrom . import x\nimport os.path\n"
    found = rules.foreign_imports(sample, "s.py")
    assert [line.partition(": ")[2] for line in found] == [
        "imports yaml",
        "imports swarm.kernel",
        "imports .",
    ]
