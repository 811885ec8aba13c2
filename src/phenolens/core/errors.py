"""The one error a user causes and can mend: bad input."""


class InputError(Exception):
    """Something the user gave cannot be used.

    The message is one line: what was found, where, what was expected, what to do. The command line prints it and
    exits with code 2; nothing has been half-written by then.
    """


def at_least(flag: str, value: float, least: float) -> None:
    """InputError unless the number given with a flag is finite and at least this."""
    if not least <= value < float("inf"):
        raise InputError(f"{flag} {value}: expected a number of at least {least}")


def at_most(flag: str, value: float, most: float) -> None:
    """InputError when the number given with a flag is larger than any machine could serve."""
    if not value <= most:
        raise InputError(f"{flag} {value}: expected a number of at most {most:,}")


class RunError(Exception):
    """A computation cannot go on (a loss that is not finite, say); one line says where it stood and what is kept."""


class Interrupted(RunError):
    """The user stopped it; what was done is saved."""
