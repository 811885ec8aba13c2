"""The documentation as web pages: built without a warning, so without a broken link."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phenolens import cli

SCRIPT = Path(__file__).parents[1] / "scripts" / "site"


@pytest.mark.slow
def test_the_site_is_built_and_has_every_page_command_and_function(tmp_path):
    pytest.importorskip("sphinx")
    environment = os.environ | {"PHENOLENS_SITE": "1"}
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    written = [path.stem for path in (SCRIPT.parents[1] / "docs").glob("*.md")]
    for name in (*written, "index", "commands", "functions", "contributing"):
        assert (tmp_path / f"{name}.html").stat().st_size > 1000
    assert {path.stem for path in tmp_path.rglob("*.ipynb")} == {"my-plate", "my-table", "reproduce", "own-encoder"}
    commands = (tmp_path / "commands.html").read_text()
    assert all(f'id="{verb}"' in commands for verb in cli.VERBS)
    assert "--batch-size" in commands
    functions = (tmp_path / "functions.html").read_text()
    assert all(f"ph.{verb}" in functions for verb in cli.VERBS)
    assert "Raises" in functions
