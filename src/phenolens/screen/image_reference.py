"""Say which image inside a file is meant: `path#page=2`, `path#channel=DAPI`, `path#channel=2&z=5`.

Numbers count from 1. A `#` that is not followed by such words is part of the file's name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

WORDS = ("page", "channel", "z", "t")
CHOICE = re.compile(rf"#((?:{'|'.join(WORDS)})=[^#&/\\]+(?:&(?:{'|'.join(WORDS)})=[^#&/\\]+)*)$")
# A channel's name is free text; what would end it is written as a web address does.
ESCAPED = {"%": "%25", "#": "%23", "&": "%26", "/": "%2F", "\\": "%5C"}


@dataclass(frozen=True)
class ImageReference:
    """A file (or the folder of an OME-Zarr image) and, where it holds more than one image, the words that choose."""

    file: Path
    choice: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The reference as `file_<channel>` has it."""
        words = "&".join(f"{word}={_escape(value)}" for word, value in self.choice.items())
        return self.file.as_posix() + (f"#{words}" if words else "")


def image_reference(text: str | Path) -> ImageReference:
    """The reference that a cell of `file_<channel>`, or a path made of it, says."""
    text = str(text)
    match = CHOICE.search(text)
    if match is None:
        return ImageReference(Path(text))
    pairs = (part.split("=", 1) for part in match[1].split("&"))
    return ImageReference(Path(text[: match.start()]), {word: _unescape(value) for word, value in pairs})


def file_on_disk(text: str | Path) -> Path:
    """What to ask the file system about: the path without `#page=...`."""
    return image_reference(text).file


def _escape(value: str) -> str:
    return "".join(ESCAPED.get(letter, letter) for letter in value)


def _unescape(value: str) -> str:
    for letter, written in reversed(ESCAPED.items()):
        value = value.replace(written, letter)
    return value
