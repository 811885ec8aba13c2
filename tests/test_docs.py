"""What the documents say exists: flags, files, links; and their Python compiles."""

import ast
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest

import phenolens as ph
from phenolens import cli
from phenolens.core.keywords import setting_types

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PROGRAMS = set(
    "--all --logdir --nproc-per-node --standalone --fix --help --version --config --quiet --verbose "
    "--extra-index-url --nthreads --nworkers --scheduler-file --ntasks --cpus-per-task "
    "--mem-per-cpu --time --exact".split()
)


def flags_of_verbs() -> set[str]:
    """Every flag of every verb, with its `no-` form."""
    functions = [entry.function(verb) for verb, entry in cli.VERBS.items()]
    names = {name for function in functions for name in inspect.signature(function).parameters}
    flags = {f"--{name.replace('_', '-')}" for name in names}
    return flags | {flag.replace("--", "--no-", 1) for flag in flags}


def flags_of_benchmarks() -> set[str]:
    """Every flag of every benchmark."""
    found: set[str] = set()
    for path in (ROOT / "benchmarks").glob("*.py"):
        spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for their annotations
        spec.loader.exec_module(module)
        found |= {f"--{name.replace('_', '-')}" for name in setting_types(module.Flags)}
    return found


SOURCE_FLAGS_OF_CROPS_ALONE = {"--crop-px"}  # of finished crops, whose side `check` accepts as it is


def flags_in_messages(path: Path) -> set[str]:
    """Every flag in the texts of a module, but for its docstrings."""
    tree = ast.parse(path.read_text())
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    documents = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return {
        name for node in texts if id(node) not in documents for name in re.findall(r"(?<![\w-])--[a-z-]+", node.value)
    }


def test_messages_on_a_source_advise_flags_of_each_command_that_reads_one():
    package = ROOT / "src" / "phenolens"
    paths = [path for path in (package / "screens").glob("*.py") if path.name != "download.py"]
    paths += [package / "crops" / f"{name}.py" for name in "check source grey_values nuclei config".split()]
    advised = set().union(*map(flags_in_messages, paths))
    assert {"--plates", "--skip-missing", "--layout"} <= advised
    for verb in ("check", "crop", "run"):
        known = {f"--{name.replace('_', '-')}" for name in inspect.signature(cli.VERBS[verb].function(verb)).parameters}
        assert advised - known - (SOURCE_FLAGS_OF_CROPS_ALONE if verb == "check" else set()) == set()


def test_a_message_that_advises_a_flag_of_another_command_names_that_command():
    assert (
        cli.flags_of_others("check", "give a smaller --crop-px") == " (--crop-px is a flag of phenolens run and crop)"
    )
    assert cli.flags_of_others("crop", "give a smaller --crop-px, or run with --no-quiet") == ""
    assert cli.flags_of_others("check", "run `phenolens crop STUDY --crop-px 40`") == ""


def test_every_flag_that_a_page_names_is_there():
    known = flags_of_verbs() | flags_of_benchmarks() | OTHER_PROGRAMS
    for page in PAGES:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", page.read_text()))
        assert named <= known, (page.name, named - known)


def test_every_verb_that_a_page_names_is_there():
    for page in PAGES:
        named = set(re.findall(r"phenolens ([a-z]+) [A-Z]{2}", page.read_text()))
        assert named <= set(cli.VERBS), (page.name, named - set(cli.VERBS))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_a_page_compiles(page):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        compile(block, page.name, "exec")


def test_the_readmes_python_runs_on_profiles(tmp_path, monkeypatch):
    """The block about scoring, with the study's profiles in place."""
    import numpy as np

    from table_source import wells
    from test_evaluate import parts_of

    table = wells()
    table["week"] = np.where(table["drug"].str.endswith("0"), "w1", "w2")
    folder = tmp_path / "STUDY" / "profiles" / "imagenet-seed0"
    folder.mkdir(parents=True)
    parts_of(table).write_h5ad(folder / "wells_mean.h5ad")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})


def test_the_tables_of_the_python_page_name_every_public_function():
    text = (ROOT / "docs" / "python.md").read_text()
    for title, names in (("pp", ph.pp.__all__), ("tl", ph.tl.__all__), ("pl", ph.pl.__all__)):
        section = text.partition(f"`ph.{title}`\n")[2].partition("\n## ")[0]
        assert sorted(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in rows(section)))) == sorted(names)
    commands = "".join(row.split("|")[1] for row in rows(text.partition("## The commands")[2].partition("\n## ")[0]))
    assert sorted(re.findall(r"`ph\.(\w+)`", commands)) == sorted(cli.VERBS)
    assert set(re.findall(r"ph\.(\w+)", text)) <= set(ph.__all__)


def rows(section: str) -> list[str]:
    """The rows of a table without its heading."""
    return [line for line in section.splitlines() if line.startswith("|")][2:]
