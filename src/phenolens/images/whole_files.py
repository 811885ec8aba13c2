"""Look at the head and length of every image of a screen before any work: which are whole, which lack chunks.

No pixel is decoded, so damage in the middle of a compressed image is told only when it is read.
"""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.errors import InputError
from phenolens.images.planes import open_plane
from phenolens.images.zarr_planes import chunks_of, is_zarr
from phenolens.progress import tell, track
from phenolens.screen.image_reference import file_on_disk, image_reference
from phenolens.screen.table import Screen, where_of

OR_SKIP = ", or run with --skip-missing"
UNREADABLE = "fields with a file that cannot be read"


@dataclass(frozen=True)
class MissingChunks:
    """Chunks of OME-Zarr images that are not on disk and are read as the fill value (0 as a rule)."""

    n: int
    n_fields: int
    first: str  # where the first of them are, in words

    def __str__(self) -> str:
        """In one line."""
        return (
            f"{self.n:,} chunks in {self.n_fields:,} fields are not on disk and are read as empty: {self.first}. Right "
            "where the writer leaves out what is black all over, as zarr does; else the copy is not whole"
        )


def with_whole_files(screen: Screen, *, skip_missing: bool) -> Screen:
    """The screen with the fields alone whose every file has an image's head and length.

    InputError for the first that is cut short, foreign, of no bytes or without leave, and says how many there are; with
    `skip_missing` they are left out and counted, and the first is told. InputError for an image of another size than
    the first.
    """
    table = screen.table
    is_whole = np.ones(len(table), bool)
    first = ""
    sizes = _Sizes()
    for row in track(range(len(table)), "Fields whose files were looked at", total=len(table)):
        said = _what_is_wrong(screen, table.iloc[row], sizes)
        is_whole[row] = not said
        first = first or said
    n = int((~is_whole).sum())
    if skip_missing:
        first = first.replace(OR_SKIP, "")
    if not n:
        return screen
    if not skip_missing or not is_whole.any():
        raise InputError(f"{first} ({n:,} of {len(table):,} fields have such a file)")
    tell(f"left out, {n:,} of {len(table):,} fields with a file that cannot be read; the first: {first}")
    left_out = Counter(screen.left_out)
    left_out[UNREADABLE] += n
    return replace(screen, table=table[is_whole].reset_index(drop=True), left_out=dict(left_out))


def missing_chunks(screen: Screen) -> MissingChunks | None:
    """The chunks that a screen's OME-Zarr images lack; None where none is lacking."""
    columns = [f"file_{channel}" for channel in screen.channels]
    if not any(is_zarr(file_on_disk(path)) for path in screen.table[columns].to_numpy().ravel()[: len(columns)]):
        return None
    n = n_fields = 0
    first = ""
    fields = screen.table.iterrows()
    for _, field in track(fields, "Fields whose chunks were counted", total=len(screen.table)):
        before = n
        for named, path in _images(screen, field):
            chunks = chunks_of(image_reference(path), named=named)
            n += chunks.n_missing
            if chunks.n_missing and not first:
                first = f"{named} lacks {chunks.n_missing} of {chunks.n}"
        n_fields += n > before
    return MissingChunks(n, n_fields, first) if n else None


@dataclass
class _Sizes:
    """The size of the first image, which all others must have."""

    first: str = ""
    shape: tuple[int, int] = (0, 0)

    def refuse_another(self, shape: tuple[int, int], *, named: str) -> None:
        if not self.first:
            self.first, self.shape = named, shape
        if shape != self.shape:
            raise InputError(
                f"{named} is {shape[0]} x {shape[1]} px, {self.first} is {self.shape[0]} x {self.shape[1]} px; all "
                "fields must have one size"
            )


def _what_is_wrong(screen: Screen, field: "pd.Series[str]", sizes: _Sizes) -> str:
    """Why the first file of a field that cannot be read cannot; nothing where all can. InputError on another size."""
    shapes = {}
    for named, path in _images(screen, field):
        try:
            with open_plane(path, named=named) as plane:
                shapes[named] = plane.shape
        except InputError as error:
            return str(error)
    for named, shape in shapes.items():
        sizes.refuse_another(shape, named=named)
    return ""


def _images(screen: Screen, field: "pd.Series[str]") -> list[tuple[str, Path]]:
    """Each channel's name in words and its file."""
    where = where_of(field)
    return [(f'{where}: channel "{name}"', screen.folder / field[f"file_{name}"]) for name in screen.channels]
