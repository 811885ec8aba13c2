"""A field has one row, and an image is of one field and channel: what is named twice is refused, copies are found."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.screens.image_reference import image_reference
from phenolens.screens.image_states import middle_sha256
from phenolens.screens.remote import is_remote
from phenolens.screens.screen import FIELD, Screen, where_of
from phenolens.screens.unread_columns import UNREAD

COLOURS = {"red": "1", "green": "2", "blue": "3"}


def each_field_once(fields: pd.DataFrame, tables: Mapping[str, int]) -> tuple[pd.DataFrame, list[str]]:
    """The fields without rows that repeat an earlier one, and a note that counts them.

    `tables` are the names of the tables that the fields were read from, in order, and their numbers of rows. Columns
    that are not read may differ. InputError for two rows of one field that differ, such as in their images.
    """

    def named(place: int) -> str:
        table, end = next(each for each in zip(tables, accumulate(tables.values())) if place < each[1])
        return f"{table}, row {place - end + tables[table] + 2}"

    keys = [name for name in FIELD if name in fields]
    read = [name for name in map(str, fields) if not name.startswith(UNREAD)]
    is_named = fields[keys].notna().all(axis=1)
    repeats = is_named & fields.duplicated(read)
    twice = ~repeats & is_named & fields.duplicated(keys)
    if twice.any():
        later = int(twice.to_numpy().argmax())
        row = fields.iloc[later]
        earlier = int((fields[keys] == row[keys]).all(axis=1).to_numpy().argmax())
        other = fields.iloc[earlier]
        name = next(name for name in read if row[name] != other[name] and pd.notna([row[name], other[name]]).any())
        raise InputError(
            f"{named(earlier)} and {named(later)} are both {where_of({'site': 1, **row})}, with {name} "
            f'"{other[name]}" and "{row[name]}" '
            f"({counted(int(twice.sum()), 'such row')}); correct the site (--site-column), "
            "or remove one of them"
        )
    first = np.flatnonzero(repeats)[:1].tolist()
    count = f"({counted(int(repeats.sum()), 'such row')})"
    return fields[~repeats], [f"{named(row)}: repeats an earlier row {count}, and is left out" for row in first]


def refuse_repeated_images(screen: Screen) -> Screen:
    """The screen; InputError where two fields, or two channels of a field, name one image.

    Links are followed, and a choice of the first (`#page=1`) is the file without one. Files that are not there are no
    images: `with_files` names them.
    """

    @cache
    def on_disk(folder: Path) -> Path:
        return (screen.folder / folder).resolve()

    def identity(text: str) -> tuple[str, ...]:
        reference = image_reference(text)
        file = on_disk(reference.file.parent) / reference.file.name
        chosen = {axis: COLOURS.get(value.lower(), value.lstrip("0")) for axis, value in reference.choice.items()}
        return str(file.resolve() if file.is_symlink() else file), *sorted(
            f"{axis}={value}" for axis, value in chosen.items() if value != "1"
        )

    first: dict[tuple[str, ...], tuple[int, str]] = {}
    repeated: list[tuple[tuple[int, str], tuple[int, str], str]] = []
    for channel in screen.channels:
        for row, text in enumerate(screen.table[f"file_{channel}"].astype(str)):
            earlier = first.setdefault(identity(text), (row, channel))
            if earlier != (row, channel) and (screen.folder / image_reference(text).file).exists():
                repeated.append(((row, channel), earlier, text))
    if repeated:
        (row, channel), (other, its_channel), text = repeated[0]
        also = "" if row == other else f"{where_of(screen.table.iloc[other])}, "
        raise InputError(
            f'{where_of(screen.table.iloc[row])}: channel "{channel}" is the image {text}, which {also}channel '
            f'"{its_channel}" names too ({counted(len(repeated), "such image")}); an image is of one field and one '
            "channel: correct the names or the folders"
        )
    return screen


def copied_images(screen: Screen) -> tuple[list[tuple[Path, Path]], int]:
    """Files of a screen's images that have the bytes of an earlier one, each with that, and how many were compared.

    Images of OME-Zarr, which are folders, and those of a source by address are not compared.
    """
    references = (image_reference(str(text)) for name in screen.channels for text in screen.table[f"file_{name}"])
    distinct = dict.fromkeys(one.file for one in references)
    files = [file for file in distinct if (path := screen.folder / file).is_file() and not is_remote(path)]
    groups = [files]  # files of one size that agree in the middle are compared whole
    for key in (_size, middle_sha256, _whole):
        alike: defaultdict[tuple[int, object], list[Path]] = defaultdict(list)
        for place, group in enumerate(groups):
            for file in group:
                alike[place, key(screen.folder / file)].append(file)
        groups = [group for group in alike.values() if len(group) > 1]
    return [(file, first) for first, *others in groups for file in others], len(files)


def _size(path: Path) -> int:
    return path.stat().st_size


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
