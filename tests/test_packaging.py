"""What describes the package to others agrees with pyproject.toml: versions, dependencies, citation, workflows."""

import re
import tomllib
from pathlib import Path

import pytest

import phenolens

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def loaded(path: str) -> dict:
    """A YAML file of the repository; its `on:` is the key True."""
    return yaml.safe_load((ROOT / path).read_text())


def test_every_file_has_the_packages_version():
    recipe = loaded("packaging/recipe.yaml")
    versions = {PROJECT["version"], recipe["context"]["version"], loaded("CITATION.cff")["version"]}
    assert versions == {phenolens.__version__}


def test_the_conda_recipe_has_the_packages_dependencies():
    named = {"matplotlib-base": "matplotlib", "pytorch": "torch"}
    needs = [line.split() for line in loaded("packaging/recipe.yaml")["requirements"]["run"]]
    needs = {named.get(name, name): bounds for name, bounds in needs}
    assert needs.pop("python") == PROJECT["requires-python"]
    wanted = [re.match(r"([\w-]+)(.*)", line).groups() for line in PROJECT["dependencies"]]
    assert {name: set(bounds.split(",")) for name, bounds in needs.items()} == {
        name: set(bounds.split(",")) for name, bounds in wanted
    }


def test_the_citation_names_the_paper_and_its_authors():
    cited = loaded("CITATION.cff")["preferred-citation"]
    assert [author["family-names"] for author in cited["authors"]][::5] == ["Lafarge", "Veta"]
    assert (cited["year"], cited["volume"]) == (2019, 102)


def test_workflows_try_three_systems_and_every_python_that_is_promised():
    matrix = loaded(".github/workflows/check.yml")["jobs"]["systems"]["strategy"]["matrix"]
    assert matrix["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    promised = [line.split()[-1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert matrix["python"] == promised
    assert min(promised, key=lambda text: int(text.split(".")[1])) == PROJECT["requires-python"].removeprefix(">=")
    release = loaded(".github/workflows/release.yml")["jobs"]
    assert release["publish"]["needs"] == "try"
    assert release["try"]["needs"] == "build"


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("  Downloading torch-2.13.0-cp311-manylinux_2_28_x86_64.whl (180.5 MB)", "downloading torch, 180 MB"),
        ("  Using cached https://files/scikit_image-0.25.2-cp311.whl (14 MB)", "using cached scikit_image, 14 MB"),
        ("  Downloading click-8.5.1-py3-none-any.whl (98 kB)", ""),
        ("  Downloading pillow-12.0.0-cp311.whl (7.0 MB)", ""),
        ("Installing collected packages: mpmath, torch", "unpacking all packages"),
    ],
)
def test_the_scripts_show_what_takes_long_while_pip_installs(monkeypatch, line, step):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import environment

    assert environment.step_of(line) == step
