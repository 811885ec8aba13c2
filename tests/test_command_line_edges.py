"""The edges of the command line: closed pipes, two processes in one new study, and paths that a shell would split."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from phenolens.core.errors import InputError
from phenolens.core.files import alone
from phenolens.printing import after_fetch
from phenolens.screens.download import FetchConfig
from phenolens.study import MARKER, Study

CALL = [sys.executable, "-c", "import sys; from phenolens.cli import main; sys.exit(main(sys.argv[1:]))"]


@pytest.mark.parametrize("arguments", [["--help"], ["crop", "--help"], ["--version"]])
def test_a_closed_pipe_ends_in_silence(arguments):
    process = subprocess.Popen([*CALL, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() in (0, 141)


def test_a_study_that_another_process_has_just_begun_is_opened(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / ".crops.lock").touch()
    (folder / f".{MARKER}.partial").touch()
    assert Study.create(folder).folder == folder
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    with pytest.raises(InputError, match="other"):
        Study.create(tmp_path / "other")


def test_a_refused_process_leaves_the_new_study_of_another_alone(tmp_path):
    folder = tmp_path / "study"
    folder.mkdir()
    lock = folder / ".crops.lock"
    with alone(lock, doing="making crops"):
        with pytest.raises(InputError, match="making crops"), Study.begun(folder), alone(lock, doing="making crops"):
            pass
        assert (folder / MARKER).is_file()
    assert lock.exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder in which no file can be made")
def test_a_lock_that_cannot_be_made_is_not_held_by_another():
    with pytest.raises(OSError, match="No such file"), alone(Path("/proc/.x.lock"), doing="scoring"):
        pass


def test_paths_in_the_next_command_are_quoted(tmp_path, capsys):
    study = Study.create(tmp_path / "st moved")
    assert shlex.split(study.quoted) == [str(study.folder)]
    after_fetch(tmp_path / "a screen", {"download": FetchConfig()})
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(tmp_path / "a screen") in shlex.split(line)
