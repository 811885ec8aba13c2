"""Times that people read."""

import io
import time

import pytest

from phenolens.core import progress
from phenolens.core.counted import counted
from phenolens.core.progress import duration, track


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (99, "99 s"),
        (101, "2 min"),
        (3599, "1 h"),
        (12000, "3 h 20 min"),
        (90000, "1 d 1 h"),
        (465580, "5 d 9 h"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds, text):
    assert duration(seconds) == text


def test_a_number_has_its_noun_in_the_right_form():
    assert [counted(n, "well") for n in (0, 1, 2593)] == ["0 wells", "1 well", "2,593 wells"]
    assert counted(2, "batch", plural="batches") == "2 batches"


def test_a_log_has_what_is_done_of_all_and_how_many_a_minute(monkeypatch, capsys):
    clock = iter(range(0, 600, 15))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 20)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(track("abc", "Plates", total=3)) == ["a", "b", "c"]
    assert "Plates: 1 of 3, 2 a minute, about 60 s left" in capsys.readouterr().err


def test_the_first_of_very_many_steps_say_nothing_of_the_time_left(monkeypatch, capsys):
    clock = iter(range(0, 600, 15))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 20)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(track("abcd", "steps", total=progress.MOST_AHEAD + 3)) == list("abcd")
    first, then = capsys.readouterr().err.splitlines()
    assert first == "steps: 1 of 1003, 2 a minute"
    assert then == "steps: 3 of 1003, 3 a minute, about 5 h 33 min left"


@pytest.mark.parametrize(("before_s", "is_shown"), [(30, False), (0, True)])
def test_a_bar_is_shown_only_for_work_that_lasts(monkeypatch, before_s, is_shown):
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", written)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "SECONDS_BEFORE_BAR", before_s)
    for item in track("ab", "Names of files read", total=2):
        time.sleep(0.3)
        assert item in "ab"
    assert ("Names of files read" in written.getvalue()) == is_shown


def test_a_rate_is_written_in_full():
    assert [progress._a_minute(n) for n in (1.234, 999, 5_012_345)] == [
        "1.23 a minute",
        "999 a minute",
        "5,010,000 a minute",
    ]
