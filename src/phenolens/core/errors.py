"""The errors that the command line reports in one line."""


class InputError(Exception):
    """Input that cannot be used; the user can correct it.

    The message is one line: what was found, where, what was expected, what to do. The command line prints it and
    exits with code 2. Nothing has been half-written.
    """


class RunError(Exception):
    """A computation that cannot continue, such as a loss that is not finite; the message says what is kept."""


class Interrupted(RunError):
    """The user stopped it; finished work is saved."""


def one_line(error: Exception) -> str:
    """The message of a library's error in one line."""
    return " ".join(str(error).split())
