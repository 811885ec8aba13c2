"""How an image is named: a file and, where it holds several images, the choice of one (`path#page=2`).

Numbers count from 1. A `#` without such a choice behind it is part of the file's name. `z=max` and `z=brightest` take
all planes of a stack, whose other planes may be files of their own (`with=a|b`, relative to the first); `black=100` is
subtracted from the grey values.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from phenolens.core.errors import InputError

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
AXES = ("page", "channel", "z", "t")
CHOICES = (*AXES, "with", "black")
CHOICE = re.compile(rf"#((?:{'|'.join(CHOICES)})=[^#&/\\]+(?:&(?:{'|'.join(CHOICES)})=[^#&/\\]+)*)$")
PROJECTIONS = ("max", "brightest")  # of a stack: the largest value of each pixel; the plane with the largest mean
# A channel's name is free text; what would end it is written as a web address does.
ESCAPED = {"%": "%25", "#": "%23", "&": "%26", "/": "%2F", "\\": "%5C"}


@dataclass(frozen=True)
class ImageReference:
    """A file (or the folder of an OME-Zarr image) and, where it holds several images, the choice of one."""

    file: Path
    choice: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The reference as written in `file_<channel>`."""
        choice = "&".join(f"{axis}={_escape(value)}" for axis, value in self.choice.items())
        return self.file.as_posix() + (f"#{choice}" if choice else "")

    @property
    def files(self) -> list[Path]:
        """The file, and those of the other planes of its stack."""
        others = self.choice.get("with", "")
        return [self.file, *(self.file.parent / name for name in others.split("|") if name)]

    @property
    def black(self) -> int:
        """The grey value that means no light; InputError where it is no whole number."""
        text = self.choice.get("black", "0")
        if not text.isdecimal():
            raise InputError(f'{self.file}: black is "{text}", expected a whole number from 0')
        return int(text)


def image_reference(text: str | Path) -> ImageReference:
    """Parse the text of `file_<channel>`, or a path made of it."""
    text = str(text)
    match = CHOICE.search(text)
    if match is None:
        return ImageReference(Path(text))
    pairs = (part.split("=", 1) for part in match[1].split("&"))
    return ImageReference(Path(text[: match.start()]), {word: _unescape(value) for word, value in pairs})


def file_on_disk(text: str | Path) -> Path:
    """The path without `#page=...`."""
    return image_reference(text).file


def is_zarr(path: Path) -> bool:
    """Whether a path lies in a zarr folder."""
    return any(part.lower().endswith(".zarr") for part in path.parts)


def _escape(value: str) -> str:
    return "".join(ESCAPED.get(letter, letter) for letter in value)


def _unescape(value: str) -> str:
    for letter, written in reversed(ESCAPED.items()):
        value = value.replace(written, letter)
    return value


def chosen_planes(
    stack: Sequence[tuple[str, int]], choice: Mapping[str, str], channel_names: Sequence[str], *, named: str, path: Path
) -> list[tuple[int, ...]]:
    """The chosen place on each axis (letter, length) of a stack: one plane, or with a projection each z plane.

    Channels also go by name; an axis without a name of its own is chosen as `channel`. InputError for an axis of
    several images without a choice, and for a choice that the file does not have.
    """
    lengths: dict[str, int] = {}
    planes: list[tuple[int, ...]] = [()]
    for axis, length in stack:
        word = {"Z": "z", "T": "t"}.get(axis, "channel")
        if word in lengths and length > 1 < lengths[word]:
            raise InputError(f"{named} has several axes that are not z or t ({path}); choose with #page=1 and so on")
        lengths[word] = max(length, lengths.get(word, 1))
        text = choice.get(word)
        if word == "channel" and text is not None and text in channel_names:
            chosen = [list(channel_names).index(text)]
        elif word == "z" and text in PROJECTIONS:
            chosen = list(range(length))
        elif length == 1:
            chosen = [0]
        elif text is None:
            raise InputError(
                f"{named} is one of {length} along {word} ({path}); choose with {word}=1 to {word}={length} after #"
                + (", or z=max or z=brightest; --z says it for all files" if word == "z" else "")
                + ("; --t says it for all files" if word == "t" else "")
            )
        else:
            known = f"; its channels are {', '.join(channel_names)}" if word == "channel" and channel_names else ""
            chosen = [chosen_number(text, length, what=word, named=named, path=path, known=known)]
        planes = [(*plane, at) for plane in planes for at in chosen]
    refuse_lacking(choice, lengths, channel_names, named=named, path=path)
    return planes


def refuse_lacking(
    choice: Mapping[str, str],
    lengths: Mapping[str, int],
    channel_names: Sequence[str] = (),
    *,
    named: str,
    path: Path,
) -> None:
    """InputError for a choice along an axis that the file does not have, such as z=3 of a single image."""
    for word in AXES:
        text = choice.get(word, "1")
        is_named = text in channel_names if word == "channel" else word == "z" and text in PROJECTIONS
        if lengths.get(word, 1) == 1 and not is_named:
            chosen_number(text, 1, what=word, named=named, path=path)


def projected(planes: Sequence[Pixels], how: str) -> Pixels:
    """The planes (H, W) of a stack as one image: the largest value of each pixel, or the plane with the largest mean.

    `brightest` takes the first of equals, in each channel by itself.
    """
    if how == "brightest":
        return max(planes, key=lambda plane: float(plane.mean()))
    return planes[0] if len(planes) == 1 else np.maximum.reduce(planes)


def chosen_number(text: str, n: int, *, what: str, named: str, path: Path, known: str = "") -> int:
    """A number from 1 to n as an index from 0; InputError where the file does not have it."""
    if text.isdecimal() and 1 <= int(text) <= n:
        return int(text) - 1
    if n == 1:
        raise InputError(f'{named} names {what} "{text}" of {path}, which has one; correct the name')
    raise InputError(f'{named} names {what} "{text}" of {path}, which has {what} 1 to {n}{known}; correct the name')
