"""Numbers as people write them: a proper minus sign, no −0, and a percent sign on the line of its number."""

import math


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


def unbroken(text: str) -> str:
    """A text in which no line ends between a number and its percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")
