"""Times that people read."""

import pytest

from phenolens.core.progress import duration


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
