"""The rooms of the package: which may import which, where heavy libraries belong, names, and paths."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import phenolens
from phenolens.cli import VERBS

PACKAGE = Path(phenolens.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
# From the base up: a file imports from its own room and those before it. `__init__` holds the lazy public names.
ROOMS = [
    "__init__",
    "core",
    "screens",
    "simulation",
    "crops",
    "morphology",
    "models",
    "training",
    "plotting",
    "profiles",
    "study",
    "pipeline",
    "runs",
    "travels",
    "image_realism",
    "latent_features",
    "blinded_test",
    "paper_figures",
    "model_comparison",
    "reports",
    "web",
    "commands",
    "pp",
    "tl",
    "pl",
    "printing",
    "arguments",
    "cli",
]
# One folder per feature. A slice knows no other slice, except those that show what the others found.
SLICES = {"travels", "image_realism", "latent_features", "blinded_test", "paper_figures", "model_comparison"}
SLICES |= {"reports", "web"}
SHOW_OTHERS = {"paper_figures", "model_comparison", "reports", "web"}
# A Study gives out what is up to date alone.
ONE_ROOM = {"readiness": "study", "embedding_files": "study"}
# Rooms that stand in one line but do not know each other.
APART = {
    "profiles": {"models", "training", "crops"},
    "plotting": {"models", "training", "crops"},
    "morphology": {"crops"},
    "models": {"crops"},
}
# The list of models with its titles and order, which loads no model, is for every room.
MODEL_LIST = {f"models.{name}" for name in ("MODELS", "model_title", "plainest_first", "preferred_first")}
# Whole libraries, and the rooms or files that alone may import them.
LIBRARIES = {
    "torch": {"models", "training"},
    "matplotlib": {"plotting", "figure.py", "film.py", "page.py", "paper_figures", "reports", "pl"},
    "fastapi": {"web"},
    "uvicorn": {"web"},
    "plotly": {"web"},
    "imageio_ffmpeg": {"film.py"},
}
# Further libraries that take long to load, anywhere but for flags and help.
NOT_FOR_HELP = {"anndata", "h5py", "scipy", "skimage", "sklearn", "zarr"}
# File names that mean the same in every slice.
OF_EVERY_SLICE = {"__init__", "config", "compute", "saved", "figure", "table", "page"}


def name_of(path: Path) -> str:
    """A file's dotted name below the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def room_of(module: str) -> str:
    """The room of a module by its dotted name below the package."""
    first = module.split(".")[0]
    return ONE_ROOM.get(first, first)


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


def own_imports(path: Path) -> set[str]:
    """The modules and names of this package that a file imports, dotted, below the package."""
    inner = {module.removeprefix("phenolens.") for module in imports_of(path) if module.startswith("phenolens.")}
    return {name if room_of(name) in ROOMS else "__init__" for name in inner}


def test_a_file_imports_only_from_its_own_room_and_those_before_it():
    wrong = []
    for path in FILES:
        here = room_of(name_of(path))
        for module in own_imports(path) - MODEL_LIST:
            there = room_of(module)
            upwards = ROOMS.index(there) > ROOMS.index(here) or there in APART.get(here, set())
            other_slice = there in SLICES - {here} and here in SLICES - SHOW_OTHERS
            if upwards or other_slice:
                wrong.append(f"{name_of(path)} imports {module}")
    assert wrong == []


def test_heavy_libraries_are_imported_only_in_their_rooms():
    wrong = []
    for path in FILES:
        here = {room_of(name_of(path)), path.relative_to(PACKAGE).as_posix(), path.name}
        heavy = {module.split(".")[0] for module in imports_of(path)} & LIBRARIES.keys()
        wrong += [f"{name_of(path)} imports {library}" for library in heavy if not here & LIBRARIES[library]]
    assert wrong == []


def test_no_call_exists_on_one_system_alone():
    modules = {"fcntl", "grp", "msvcrt", "pwd", "resource", "termios", "winreg"}
    calls = {f"os.{name}" for name in ("fork", "geteuid", "getuid", "killpg", "setsid", "sched_getaffinity", "uname")}
    wrong = []
    for path in FILES:
        alone = {module.split(".")[0] for module in imports_of(path)} & modules
        alone |= {
            ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        } & calls
        wrong += [f"{name_of(path)}: {name}" for name in alone]
    assert wrong == []


def test_a_file_name_has_one_meaning():
    rooms = defaultdict(list)
    for path in FILES:
        rooms[path.stem].append(name_of(path))
    assert {stem: names for stem, names in rooms.items() if len(names) > 1 and stem not in OF_EVERY_SLICE} == {}


def test_no_script_hides_a_module_of_the_standard_library():
    root = PACKAGE.parents[1]
    scripts = [*root.glob("benchmarks/*.py"), *root.glob("scripts/*.py"), *root.glob("tests/*.py")]
    assert [path.name for path in scripts if path.stem in sys.stdlib_module_names] == []


def test_paths_inside_a_study_are_built_in_study_alone():
    wrong = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            divided = ast.unparse(node.left) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) else ""
            if divided in ("study.folder", "self.study.folder") and name_of(path) != "study":
                wrong.append(f"{name_of(path)}:{node.lineno}")
    assert wrong == []


def test_no_help_and_no_scoring_loads_what_computes():
    """Commands import what they compute with when they run, so that flags, help and mistakes are answered at once."""
    code = f"""
import sys
from contextlib import redirect_stdout, suppress
from io import StringIO
import phenolens.profiles.nsc, phenolens.printing
from phenolens.cli import VERBS, main
for verb in VERBS:
    with redirect_stdout(StringIO()) as shown, suppress(SystemExit):
        main([verb, "--help"])
    assert "usage" in shown.getvalue(), verb
    print(verb, sorted({LIBRARIES.keys() | NOT_FOR_HELP!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{verb} []" for verb in VERBS]


def test_every_public_name_can_be_loaded():
    assert [name for name in phenolens.__all__ if not hasattr(phenolens, name)] == []


def test_modules_stay_short_enough_to_be_read_at_once():
    lines = {name_of(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > 450 and name != "screens.download"} == {}
