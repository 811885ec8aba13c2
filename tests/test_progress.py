"""Times that people read."""

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
