"""A number with its noun: `1 well`, `2,593 cells`, `2 batches`."""


def counted(n: int, noun: str, *, plural: str = "") -> str:
    """The number in groups of three digits and the noun, in the plural unless the number is 1."""
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def left_out_line(what: str, n: int) -> str:
    """`left out: fields that the index names and that have no image (1)`, for kinds whose name is a plural."""
    return f"left out: {what} ({n:,})"
