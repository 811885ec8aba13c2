"""The edges of the command line: closed pipes, two processes in one new study, and paths that a shell would split."""

import os
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from layout_sources import CHANNELS, write_images, write_plate_map
from phenolens import cli
from phenolens.arguments import folder_first
from phenolens.cli import main
from phenolens.core.errors import InputError
from phenolens.core.files import alone
from phenolens.core.progress import SILENT
from phenolens.printing import after_fetch
from phenolens.screens.download import FetchConfig
from phenolens.study import MARKER, Study
from phenolens.web.server import serve

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


def test_flags_may_come_before_the_folder():
    kinds = {"steps": int, "channels": tuple[str, ...], "field": tuple[str, str, int] | None, "log": bool}
    put = lambda *words: folder_first(words, kinds, usage="STUDY")  # noqa: E731
    assert put("--steps", "5", "st", "--channels", "a", "b") == ["st", "--steps", "5", "--channels", "a", "b"]
    assert put("--field", "p", "B02", "1", "--no-log", "st") == ["st", "--field", "p", "B02", "1", "--no-log"]
    assert put("--steps=5", "a", "b") == ["a", "b", "--steps=5"]
    assert put("--steps", "-5", "st") == ["st", "--steps", "-5"]
    with pytest.raises(InputError, match=r"--channels.*STUDY"):
        put("--channels", "a", "st")


def test_settings_of_a_study_are_read_when_flags_come_first(tmp_path, capsys):
    study = Study.create(tmp_path / "study")
    (study.folder / "study.toml").write_text("[train]\nthreads = true\n")
    assert main(["train", "--steps", "3", str(study.folder)]) == 2
    assert "study.toml" in capsys.readouterr().err


@pytest.mark.parametrize("before", [None, "1"])
def test_quiet_leaves_results_and_errors(tmp_path, capsys, monkeypatch, before):
    monkeypatch.delenv(SILENT, raising=False)
    if before:
        monkeypatch.setenv(SILENT, before)
    source = write_plate_map(write_images(tmp_path / "screen"))
    assert main(["--quiet", "check", str(source)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert ", ".join(CHANNELS) in said.out
    assert os.environ.get(SILENT) == before
    assert main(["check", str(tmp_path / "none"), "--quiet"]) == 2
    assert "none" in capsys.readouterr().err


def test_verbose_shows_settings_time_and_where_an_error_arose(tmp_path, capsys):
    source = write_plate_map(write_images(tmp_path / "screen"))
    assert main(["check", str(source), "--verbose"]) == 0
    assert {"source:", "reading:", "took"} <= set(capsys.readouterr().err.split())
    assert main(["check", str(tmp_path / "none"), "--verbose"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_library_that_takes_long_to_load_is_named_to_a_person_at_a_terminal(tmp_path, monkeypatch):
    told = tmp_path / "told"
    loads = f"import pathlib, time\nwhile not pathlib.Path({str(told)!r}).exists(): time.sleep(0.01)"
    (tmp_path / "slow_library.py").write_text(loads)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(cli.LIBRARIES, "slow_library", "slow library")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(cli, "tell", told.write_text)
    with cli.loading_shown():
        import_module("slow_library")
    assert told.read_text() == "loading slow library ..."


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected(no_color, coloured):
    code = "import sys, pty; sys.exit(pty.spawn([sys.executable, '-m', 'phenolens.cli', 'explore', '--help']))"
    environment = os.environ | {"NO_COLOR": no_color, "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert (b"\x1b[" in done.stdout) == coloured


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_commands_flags_and_choices(tmp_path, capsys):
    assert main(["completion", "tcl"]) == 2
    assert "bash" in capsys.readouterr().err
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "screen").mkdir()

    def completed(*words: str) -> list[str]:
        given = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _tyro_phenolens"
        code = f'source "{script}"; {given}; printf "%s\\n" "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert completed("phenolens", "tra") == ["train", "travel"]
    assert completed("phenolens", "train", "study", "--batch-s") == ["--batch-size"]
    assert completed("phenolens", "train", "study", "--model", "flo") == ["flow"]
    assert completed("phenolens", "check", "scr") == ["screen"]


def test_explore_opens_the_browser_at_its_address(tmp_path, monkeypatch, capsys):
    pytest.importorskip("uvicorn")
    addresses = []
    monkeypatch.setattr("webbrowser.open", addresses.append)
    monkeypatch.setattr("uvicorn.Server.run", lambda *args, **more: None)
    for opened in (False, True):
        serve(lambda: None, port=0, verb="explore", message=str, opened=opened)
    assert addresses == [capsys.readouterr().err.split()[-1]]
