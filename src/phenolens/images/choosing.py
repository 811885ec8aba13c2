"""Turn the words after a file's name (`channel=DAPI&z=5`) into places in a stack of images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from phenolens.errors import InputError


def chosen_indices(
    stack: Sequence[tuple[str, int]], choice: Mapping[str, str], channel_names: Sequence[str], *, named: str, path: Path
) -> tuple[int, ...]:
    """A place on each axis (letter, length) of a stack: C by name or number, the others by number; 0 where one is."""
    indices = []
    for axis, length in stack:
        word = {"C": "channel"}.get(axis, axis.lower())
        if word in choice and axis == "C" and choice[word] in channel_names:
            indices.append(list(channel_names).index(choice[word]))
        elif word in choice:
            known = f"; its channels are {', '.join(channel_names)}" if axis == "C" and channel_names else ""
            indices.append(chosen_number(choice[word], length, what=word, named=named, path=path, known=known))
        elif length == 1:
            indices.append(0)
        else:
            raise InputError(
                f"{named} is one of {length} along {word} ({path}); choose with {word}=1 to {word}={length} after #"
            )
    return tuple(indices)


def chosen_number(text: str, n: int, *, what: str, named: str, path: Path, known: str = "") -> int:
    """A number from 1 to n as an index from 0; InputError when the file does not have it."""
    if text.isdecimal() and 1 <= int(text) <= n:
        return int(text) - 1
    raise InputError(f'{named} asks for {what} "{text}" of {path}, which has {what} 1 to {n}{known}; correct the name')
