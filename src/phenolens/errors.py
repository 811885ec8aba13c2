"""The one error a user causes and can mend: bad input."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what was found, where, what was expected, what to do. The command line prints it and
    exits with code 2; nothing has been half-written by then.
    """
