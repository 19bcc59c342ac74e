"""Imports go down, files stay small, what is public is explained, and importing does nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[1]
ROOT = REPOSITORY / "src" / "stillhouse"
FLOORS = [  # a room may import the floors under its own
    {"errors"},
    {"types", "spec", "files", "batches", "kernels", "plugins"},
    {"functional"},
    {"distributed", "objectives", "models"},
    {"methods", "tasks", "teachers", "data"},
    {"engine", "explain"},
    {"recipes", "distiller"},
    {"build"},
    {"runs"},
    {"study"},
    {"report", "export"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(ROOT.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))

FILE_LIMIT, FUNCTION_LIMIT = 400, 60
FILE_MEDIAN, FUNCTION_MEDIAN = 120, 12
Function = ast.FunctionDef | ast.AsyncFunctionDef
Public = Function | ast.ClassDef


class Import(NamedTuple):
    """One module that a file imports, at the top or inside a function."""

    line: int
    module: str


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[Import]:
    """Every import, whole paths: `from a import b` is `a.b`, which may be a module."""
    package = ["stillhouse", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = [*above, *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                yield Import(node.lineno, ".".join([*base, alias.name]))


def room(path: Path) -> str:
    """`objectives` of `objectives/logit.py`, `types` of `types.py`."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def importers(*packages: str) -> set[str]:
    """The files that import one of these packages."""
    return {
        str(path.relative_to(ROOT))
        for path in FILES
        for found in imports(path)
        if any(found.module == p or found.module.startswith(f"{p}.") for p in packages)
    }


# ------------------------------------------------------------------------------------------ imports


def test_every_room_has_a_floor() -> None:
    rooms = {room(path) for path in FILES} - {"__init__"}
    assert rooms <= FLOOR.keys()
    assert {"objectives", "methods", "engine", "types"} <= rooms  # the search found the package


@every_file
def test_imports_go_down(path: Path) -> None:
    own = room(path)
    if own == "__init__":  # the package's face, which finds any name when it is first used
        return
    for found in imports(path):
        head, *rest = found.module.split(".")
        if head != "stillhouse" or not rest or rest[0] in (own, "__version__"):
            continue
        where = f"line {found.line}: {own} may not import {rest[0]}"
        assert rest[0] in FLOOR, f"line {found.line}: import the home of {rest[0]}, not the package"
        assert FLOOR[rest[0]] < FLOOR[own], where


def test_only_the_zoo_knows_the_libraries_of_networks() -> None:
    assert importers("timm", "torchvision.models") <= {"models/zoo.py"}


def test_only_one_file_knows_accelerate() -> None:
    assert len(importers("accelerate")) == 1


def test_only_recipes_and_the_command_read_yaml() -> None:
    # the file that describes a YOLO data set is YAML
    shared = {"data/objects/yolo_config.py", "data/formats/yaml_limits.py"}
    readers = importers("yaml") - shared
    assert readers
    assert {file.split("/")[0] for file in readers} <= {"recipes", "cli"}


def test_importing_the_package_takes_no_torch_and_does_nothing(tmp_path: Path) -> None:
    say = "import sys, stillhouse; print(sorted({'torch', 'pydantic', 'yaml'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-B", "-c", say], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_every_name_that_the_package_promises_is_there() -> None:
    import stillhouse

    for name in stillhouse.__all__:
        assert getattr(stillhouse, name) is not None
    assert not hasattr(stillhouse, "nonsense")


# -------------------------------------------------------------------------------------------- sizes


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def length(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


@every_file
def test_files_and_functions_are_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= FILE_LIMIT, f"{lines} lines"
    for node in functions(path):
        assert length(node) <= FUNCTION_LIMIT, f"{node.name} has {length(node)} lines"


def test_most_files_and_functions_are_shorter_still() -> None:
    files = median(len(path.read_text().splitlines()) for path in FILES)
    lengths = median(length(node) for path in FILES for node in functions(path))
    assert (files <= FILE_MEDIAN, lengths <= FUNCTION_MEDIAN) == (True, True), (
        f"half of the files are longer than {files} lines, of the functions than {lengths}"
    )


# --------------------------------------------------------------------------------------- docstrings


def public(body: list[ast.stmt]) -> Iterator[Public]:
    """What others may use: functions, classes and their methods, nothing nested in a function."""
    for node in body:
        if isinstance(node, Public) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def overload(node: Public) -> bool:
    """Whether it is only a type of the function below it."""
    return any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)


@every_file
def test_what_is_public_is_explained(path: Path) -> None:
    silent = [
        f"{node.name} (line {node.lineno})"
        for node in public(tree(path).body)
        if not ast.get_docstring(node) and not overload(node)
    ]
    assert silent == []


@every_file
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree(path)) or not path.read_text().strip()


# -------------------------------------------------------------------------------- what is published

LICENCES = ("www.apache.org", "www.w3.org")  # whose addresses are names, not places to go to
ELSEWHERE = ("py" + "pi.org", "python" + "hosted.org", "/work" + "/", "local" + "host:")
HOST = re.compile(r"http://([\w.-]+)")


@cache
def tracked() -> tuple[Path, ...]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return tuple(path for path in paths if path.is_file())


def text(path: Path) -> str:
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode(errors="replace")


def test_no_file_names_the_place_where_it_was_written() -> None:
    named = {
        f"{path.relative_to(REPOSITORY)}: {word}"
        for path in tracked()
        for word in ELSEWHERE
        if word in text(path)
    }
    assert named == set()


def test_no_file_leads_to_an_unencrypted_place() -> None:
    hosts = {
        f"{path.relative_to(REPOSITORY)}: {host}"
        for path in tracked()
        for host in HOST.findall(text(path))
        if host not in LICENCES
    }
    assert hosts == set()


# --------------------------------------------------------------------------------- what is declared

DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}  # by what is imported
BEHIND = {"torch.utils.tensorboard": "tensorboard"}  # imports that need another package


def distribution(module: str) -> str:
    """The package that is to be installed for a module."""
    for path, package in BEHIND.items():
        if f"{module}.".startswith(f"{path}."):
            return package
    head = module.partition(".")[0]
    return DISTRIBUTIONS.get(head, head).lower().replace("_", "-")


def named_in_calls(path: Path) -> Iterator[str]:
    """The strings that calls are given: some are modules that are imported by name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            for word in node.args:
                if isinstance(word, ast.Constant) and isinstance(word.value, str):
                    yield word.value


def declared(*sections: Iterable[str]) -> set[str]:
    """`torch` of `torch>=2.6`, without what is the package itself."""
    names = (re.split(r"[\[><=!~; ]", line)[0].lower() for lines in sections for line in lines)
    return {name.replace("_", "-") for name in names} - {"stillhouse"}


def test_what_is_imported_is_what_is_declared() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if k != "dev"}
    wanted = declared(project["dependencies"], *extras.values())
    modules = {found.module for path in FILES for found in imports(path)}
    ours = {m for m in modules if m.partition(".")[0] in ("stillhouse", *sys.stdlib_module_names)}
    used = {distribution(module) for module in modules - ours}
    # timm and the networks of torchvision are imported by their names, as they take seconds
    used |= {distribution(word) for path in FILES for word in named_in_calls(path)} & wanted
    assert sorted(used) == sorted(wanted)


def test_what_an_extra_brings_is_imported_where_it_is_asked_for() -> None:
    """A file that needs an extra imports it inside a function, so that others can do without."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    required = declared(project["dependencies"])
    extras = {k: v for k, v in project["optional-dependencies"].items() if k != "dev"}
    early = {
        f"{path.relative_to(ROOT)} imports {alias.name}"
        for path in FILES
        for node in tree(path).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (
            node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")]
        )
        if distribution(alias.name) in declared(*extras.values()) - required
    }
    assert early == set()


def test_what_was_tested_is_pinned_for_everything_that_is_declared() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = declared(project["dependencies"], *project["optional-dependencies"].values())
    pinned = declared((REPOSITORY / "constraints.txt").read_text("utf-8").splitlines())
    assert wanted - pinned == set()
