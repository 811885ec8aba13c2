"""The folder of a table's scores: never in place of somebody's own files, whole whenever the process dies."""

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phenolens.commands import score_commands
from phenolens.core.files import alone
from phenolens.profiles import evaluate, scores_folder
from phenolens.profiles.scores_folder import beside, put_in_place, score_folder
from table_source import FLAGS, wells
from test_cli import refused, run, said  # noqa: F401  # a fixture

QUICK = ["--shuffles", 5, "--bootstraps", 5, "--null-draws", 20]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in that holds a table, t.csv."""
    monkeypatch.chdir(tmp_path)
    wells().to_csv(tmp_path / "t.csv", index=False)
    return tmp_path


@pytest.fixture
def uncomputed(monkeypatch):
    """Whatever is refused now was refused before computing."""
    monkeypatch.setattr(score_commands, "evaluate_table", lambda *_, **__: pytest.fail("it was computed first"))


def score(*flags: object) -> int:
    return run("evaluate", "t.csv", *FLAGS, *QUICK, *flags)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_users_own_files_among_older_scores_stop_the_next_before_it_computes(here, said, request):  # noqa: F811
    assert score("--out", "out") == 0
    request.getfixturevalue("uncomputed")
    for own in ("notes.txt", "confusion_mine.png", ".hidden"):
        (here / "out" / own).write_text("mine")
        line = refused(said, "evaluate", "t.csv", *FLAGS, "--out", "out")
        assert f'holds "{own}" besides older scores' in line
        assert (here / "out" / own).read_text() == "mine"
        (here / "out" / own).unlink()
    (here / "out" / "scores.csv").unlink()
    (here / "out" / "scores.csv").mkdir()  # a folder under a name of ours
    assert 'holds "scores.csv"' in refused(said, "evaluate", "t.csv", *FLAGS, "--out", "out")


def test_a_file_browsers_own_files_are_in_nobodys_way(here):
    assert score("--out", "out") == 0
    (here / "out" / ".DS_Store").write_text("")
    assert score("--out", "out") == 0
    assert set(json.loads((here / "out" / "about.json").read_text())["files"]) == names(here / "out")


def test_a_file_that_comes_while_scores_are_computed_is_kept_too(here, monkeypatch, said):  # noqa: F811
    assert score("--out", "out") == 0
    real = score_commands.evaluate_table

    def meanwhile(*given, **flags):
        (here / "out" / "notes.txt").write_text("mine")
        return real(*given, **flags)

    monkeypatch.setattr(score_commands, "evaluate_table", meanwhile)
    assert 'holds "notes.txt"' in refused(said, "evaluate", "t.csv", *FLAGS, *QUICK, "--out", "out")
    assert (here / "out" / "notes.txt").read_text() == "mine"
    assert names(here) == {"t.csv", "out"}


def test_the_table_itself_is_never_replaced(here, said, uncomputed):  # noqa: F811
    (here / "in").mkdir()
    (here / "t.csv").rename(here / "in" / "t.csv")
    for source in ("in/t.csv", "in"):
        assert "holds the table itself" in refused(said, "evaluate", source, *FLAGS, "--out", "in")
    assert names(here / "in") == {"t.csv"}


def test_the_folder_one_is_in_is_refused_and_a_link_leads_where_it_leads(here, said, monkeypatch):  # noqa: F811
    (here / "work").mkdir()
    (here / "elsewhere").mkdir()
    (here / "link").symlink_to("elsewhere")
    assert score("--out", "link") == 0
    assert (here / "link").is_symlink()
    assert "scores.csv" in names(here / "elsewhere")
    monkeypatch.chdir(here / "work")
    for out in (".", "..", "/"):
        assert "is or holds the folder you are in" in refused(said, "evaluate", "../t.csv", *FLAGS, "--out", out)


def test_new_folders_on_the_way_go_again_when_nothing_was_kept(here, said):  # noqa: F811
    refused(said, "evaluate", "t.csv", *FLAGS, "--mechanism", "none", "--out", "a/b/c")
    assert names(here) == {"t.csv"}
    assert score("--out", "a/b/c") == 0
    assert names(here / "a" / "b") == {"c"}


def test_a_folder_that_cannot_be_written_is_refused_before_computing(here):
    (here / "locked").mkdir()
    (here / "locked").chmod(0o555)
    (here / "file").write_text("")
    for out, words in (("locked/out", "(Permission denied)"), ("file/out", "(File exists)")):
        done = subprocess.run(
            [sys.executable, "-m", "phenolens.cli", "evaluate", "t.csv", *FLAGS, "--out", out],
            capture_output=True,
            text=True,
            preexec_fn=_as_bound_by_permissions_as_anyone,
        )
        (line,) = done.stderr.splitlines()
        assert (done.returncode, f"--out {out}: cannot be written {words}" in line) == (2, True), line


def _as_bound_by_permissions_as_anyone() -> None:
    """Give up root's right to write everywhere (CAP_DAC_OVERRIDE), for what is started next."""
    pr_capbset_drop, cap_dac_override = 24, 1
    ctypes.CDLL(None).prctl(pr_capbset_drop, cap_dac_override, 0, 0, 0)


def test_a_second_run_into_the_same_folder_is_refused_in_a_line(here, said, uncomputed):  # noqa: F811
    with alone(beside(here / "out", "lock"), doing="something"):
        assert "another process is scoring into out" in refused(said, "evaluate", "t.csv", *FLAGS, "--out", "out")
    (here / ".out.lock").unlink(missing_ok=True)
    with score_folder(here / "out", source=here / "t.csv"):
        assert "another process is scoring" in refused(said, "evaluate", "t.csv", *FLAGS, "--out", "./out")
    assert names(here) == {"t.csv"}


def test_ctrl_c_says_that_nothing_was_written_and_older_scores_stay(here, monkeypatch, said):  # noqa: F811
    assert score("--out", "out") == 0
    before = (here / "out" / "about.json").stat().st_ino

    def stopped(*_, **__):
        raise KeyboardInterrupt

    for module, function in ((evaluate, "scored"), (scores_folder, "write_h5ad")):
        with monkeypatch.context() as patched:
            patched.setattr(module, function, stopped)
            assert score("--out", "out") == 130
        assert said() == ["phenolens evaluate: stopped; nothing was written; the same command starts again"]
        assert (here / "out" / "about.json").stat().st_ino == before
        assert names(here) == {"t.csv", "out"}


def _swap_and_stop(here: Path, n: int, number: signal.Signals) -> int:
    """In a forked process: put newer scores in place of older, and get the signal at the n-th file operation."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0

    def watch(event: str, _: tuple[object, ...]) -> None:
        nonlocal seen
        if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            seen += 1
            if seen == n:
                os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with score_folder(here / "out", source=here / "t.csv") as out:
            _scores(beside(out, "partial"), "new")
            sys.addaudithook(watch)
            put_in_place(out)
        os._exit(0)
    except BaseException as error:
        (here / "said").write_text(repr(error))
        os._exit(130)


def _scores(folder: Path, which: str) -> None:
    folder.mkdir()
    for name in ("scores.csv", "treatments.h5ad"):
        (folder / name).write_text(which)
    files = ["scores.csv", "treatments.h5ad", "about.json"]
    (folder / "about.json").write_text(json.dumps({"format": "phenolens scores 1", "files": files}))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_at_any_file_operation_the_older_scores_or_the_newer_are_there_whole(tmp_path, number):
    found = []
    for n in range(1, 40):
        here = tmp_path / str(n)
        here.mkdir()
        _scores(here / "out", "old")
        status = _swap_and_stop(here, n, number)
        if status == 0:
            break
        with score_folder(here / "out", source=here / "t.csv") as out:  # what the next command begins with
            kept = {(out / name).read_text() for name in ("scores.csv", "treatments.h5ad")}
            assert len(kept) == 1
            assert names(out) == {"scores.csv", "treatments.h5ad", "about.json"}
            assert names(here) <= {"out", ".out.lock", "said"}
        found += kept
        if number == signal.SIGINT:
            assert ("already" in (here / "said").read_text()) == (kept == {"new"}), n
    assert n > 8
    assert found == sorted(found, reverse=True)  # the older up to the moment when the newer are in place
    assert set(found) == {"old", "new"}
