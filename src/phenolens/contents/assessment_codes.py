"""Names and codes of assessors: a code is all that tells who answers, so nobody can guess one."""

import re
import secrets

from phenolens.errors import InputError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U, which people mistake
CODE_LETTERS = 20  # 100 bits
NAME_CHARACTERS = 60


def new_code() -> str:
    """A new assessor's code, without the hyphens it is shown with."""
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_LETTERS))


def plain_code(typed: str) -> str:
    """A code as it is kept, from what a person typed: any case, with hyphens or spaces, O for 0, I or L for 1."""
    return re.sub(r"[\s-]", "", typed).upper().translate(str.maketrans("OIL", "011"))


def shown_code(code: str) -> str:
    """A code in groups of five, as people read it."""
    return "-".join(re.findall(".{1,5}", code))


def checked_name(name: str) -> str:
    """An assessor's name without spaces around it; InputError when nothing is left or it is overlong or unprintable."""
    name = name.strip()
    if not name or len(name) > NAME_CHARACTERS or not name.isprintable():
        raise InputError(f"assessor {name[:NAME_CHARACTERS]!r}: expected 1 to {NAME_CHARACTERS} printable characters")
    return name
