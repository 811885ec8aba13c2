"""The rooms of the project: which may import which, and what must not be loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import phenolens

PACKAGE = Path(phenolens.__file__).parent
# From the base up: a file imports from its own room and those before it.
ROOMS = [
    "base",
    "screen",
    "images",
    "models",
    "training",
    "profiling",
    "phenotype",
    "viewing",
    "study",
    "steps",
    "contents",
    "web",
    "verbs",
    "cli",
]
OF_FILE = {
    "__init__": "base",
    "errors": "base",
    "files": "base",
    "colours": "base",
    "progress": "base",
    "workers": "base",
    "study": "study",
    "steps": "steps",
    "evaluating": "steps",
    "scores_folder": "steps",
    "settings": "verbs",
    "cli": "cli",
}
# Whole libraries that only some rooms, or single files, may import.
LIBRARIES = {
    "torch": {"models", "training", "profiling/harmony.py"},
    "harmony": {"profiling/harmony.py"},
    "matplotlib": {"viewing"},
    "fastapi": {"web"},
    "uvicorn": {"web", "verbs"},
    "plotly": {"web"},
    "imageio": {"viewing"},
    "imageio_ffmpeg": {"viewing"},
}
# Data flows downwards: these do not know each other though one stands before the other.
APART = {
    "profiling": {"models", "training", "images"},
    "phenotype": {"models", "training", "images"},
    "viewing": {"models", "training", "images"},
    "images": {"models"},
}


def room_of(path: Path) -> str:
    """The room of a file of the package."""
    first = path.relative_to(PACKAGE).parts[0]
    return first if (PACKAGE / first).is_dir() else OF_FILE[path.stem]


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions, but not for type checkers alone."""
    found = set()
    tree = ast.parse(path.read_text())
    typing_only = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    skipped = {id(inner) for block in typing_only for inner in ast.walk(block)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and id(node) not in skipped:
            found |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom) and id(node) not in skipped:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def inner_room(module: str) -> str:
    """The room of a module of ours by its dotted name."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else "__init__"
    return name if (PACKAGE / name).is_dir() else OF_FILE.get(name, "base")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_its_own_room_and_those_before_it(path):
    here = room_of(path)
    inner = {module for module in imports_of(path) if module.split(".")[0] == "phenolens"}
    later = {module for module in inner if ROOMS.index(inner_room(module)) > ROOMS.index(here)}
    apart = {module for module in inner if inner_room(module) in APART.get(here, set())}
    assert (later, apart) == (set(), set())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_only_in_their_rooms(path):
    here = {room_of(path), path.relative_to(PACKAGE).as_posix()}
    heavy = {module.split(".")[0] for module in imports_of(path)} & LIBRARIES.keys()
    assert {library for library in heavy if not here & LIBRARIES[library]} == set()


@pytest.mark.parametrize(
    "module",
    [
        "phenolens.cli",
        "phenolens.profiling.harmony",
        "phenolens.profiling.neighbours",
        "phenolens.verbs.evaluate",
        "phenolens.verbs.crop",
    ],
)
def test_help_scoring_and_cropping_answer_without_torch(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'harmony', 'matplotlib', 'fastapi'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_these():
    assert sorted(phenolens.__all__) == [
        "AE",
        "CropStore",
        "InputError",
        "Screen",
        "VAE",
        "VAEPlus",
        "__version__",
        "nsc",
        "nscb",
        "read_bbbc021",
        "read_cropset",
        "simulate",
        "treatment_profiles",
        "well_profiles",
        "whiten",
    ]
    assert [name for name in phenolens.__all__ if not hasattr(phenolens, name)] == []


def test_modules_stay_short_enough_to_be_read_at_once():
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > 400} == {}
