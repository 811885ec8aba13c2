"""Numbers as people write them: a proper minus sign, no −0, and a percent sign on the line of its number."""

import math
from collections.abc import Iterable

# Standard deviations of controls. A change beyond is only said to be beyond: controls hardly vary in such a measure.
MOST_CHANGE = 10
BEYOND = f"Beyond {MOST_CHANGE}: control cells hardly vary in this measure, so the size of its change says little."


def number_text(value: float, form: str) -> str:
    """`−1.62`, `+0.0`, or a dash for NaN.

    Args:
        value: Any number.
        form: As `format` takes it; with z (`+z.1f`) what rounds to 0 has no minus sign.
    """
    return "–" if math.isnan(value) else format(float(value), form).replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """`+0.31`, with a proper minus sign; `+0.0` for what rounds to 0; a dash for NaN."""
    return number_text(value, f"+z.{digits}f")


def change_text(change: float, digits: int = 1) -> str:
    """A change in standard deviations of controls: `+0.3`; `>+10` or `<−10` beyond MOST_CHANGE."""
    if abs(change) > MOST_CHANGE:
        return f">+{MOST_CHANGE}" if change > 0 else f"<−{MOST_CHANGE}"
    return signed(change, digits)


def beyond(changes: Iterable[float]) -> str:
    """BEYOND where one of the changes is written so, else empty."""
    return BEYOND if any(abs(change) > MOST_CHANGE for change in changes) else ""


def unbroken(text: str) -> str:
    """A text in which no line ends between a number and its percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")
