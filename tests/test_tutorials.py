"""The tutorials: every block of commands and of Python runs, in order, in an empty folder."""

import os
import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest

from phenolens.cli import main
from phenolens.models import MODELS

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def ran(page: str) -> dict[str, object]:
    """Run a page's blocks in the current folder; the names that its Python defines."""
    names: dict[str, object] = {"__name__": page}
    blocks = BLOCK.findall((DOCS / f"{page}.md").read_text())
    assert {language for language, _ in blocks} == {"bash", "python"} or page == "reproduce"
    for language, text in blocks:
        if language == "python":
            exec(compile(text, page, "exec"), names)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line)
            assert program == "phenolens"
            assert main(words) == 0, line
    return names


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(MODELS)
    yield
    MODELS.clear()
    MODELS.update(before)


def test_my_table(tmp_path):
    scored = ran("my-table")["scored"]
    assert [each.score.accuracy for each in scored.scores] == [1, 1]  # the effects of the mechanisms are planted
    assert (tmp_path / "SCORES" / "protocol.md").is_file()
    assert (tmp_path / "confusion.png").stat().st_size > 1000


@pytest.mark.slow
def test_my_plate(tmp_path):
    ran("my-plate")
    assert (tmp_path / "STUDY" / "report.html").is_file()
    assert (tmp_path / "nuclei.png").is_file()
    assert set(pd.read_csv(tmp_path / "STUDY" / "scores.csv")["protocol"]) == {"NSC", "NSCB"}


@pytest.mark.slow
def test_reproduce(tmp_path):
    ran("reproduce")
    assert {"vaeplus", "pca"} == set(pd.read_csv(tmp_path / "STUDY" / "scores.csv")["model"])
    assert (tmp_path / "figure2.png").is_file()
    assert (tmp_path / "figure3.png").is_file()


@pytest.mark.slow
def test_own_encoder():
    names = ran("own-encoder")
    assert set(names["scores"]["model"]) == {"quantiles", "pca"}
    comparison = names["comparison"]
    assert dict(zip(comparison.facts["entry"], comparison.facts["features"]))["pca"] == 8
    line = re.search(r"`phenolens (benchmark STUDY [^`]*)`", (DOCS / "own-encoder.md").read_text())
    assert main(shlex.split(line[1])) == 0


@pytest.mark.slow
@pytest.mark.parametrize("page", ["my-table", "own-encoder"])
@pytest.mark.skipif(sys.platform == "win32", reason="the commands run in bash")
@pytest.mark.filterwarnings("default")  # of Jupyter's libraries
def test_a_page_runs_as_a_notebook(page, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.syspath_prepend(DOCS.parent / "scripts")
    from notebooks import notebook

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    made = notebook(DOCS / f"{page}.md")
    nbclient.NotebookClient(made, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in made.cells for output in cell.get("outputs", []))
    assert "NSCB" in printed
