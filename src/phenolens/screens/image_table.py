"""Read a screen from a table of its images in plain columns: plate, well, site, file_<channel>, compound ...

The columns and their defaults are those of plate_map.py; a plate map may give the treatments instead.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.screens.config import LayoutConfig, chosen_channels, given_path
from phenolens.screens.image_files import count_unnamed
from phenolens.screens.plate_map import known_columns, read_as_text, read_plate_map, with_defaults, with_plate_map
from phenolens.screens.screen import Screen, checked_screen

DEFAULT_TABLE = "images.csv"
FILE = "file_"


def read_table(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of a CSV with a row a field: `plate`, `well`, `file_<channel>` at least (paths within `source`).

    Files are not yet searched (see with_files). Raises InputError for a missing column, no `file_` column, and a
    field without the name of a file for each channel (with `skip_missing` left out and counted).
    """
    source = Path(source)
    path = given_path(config.table or Path(DEFAULT_TABLE), source)
    raw = read_as_text(path)
    found = {str(name)[len(FILE) :]: str(name) for name in raw.columns if str(name).startswith(FILE)}
    if not found:
        raise InputError(
            f"{path}: no column {FILE}<channel>, such as {FILE}DNA (found: {', '.join(map(str, raw.columns))})"
        )
    channels = chosen_channels(list(found), config.channels, source=path.name)
    fields = known_columns(raw, source=path.name)
    every = pd.DataFrame({theirs: raw[column] for theirs, column in found.items()})
    return described_screen(
        fields, every, source=source, table=path, config=config, channels=channels, skip_missing=skip_missing
    )


def described_screen(
    fields: pd.DataFrame,
    every: pd.DataFrame,
    *,
    source: Path,
    table: Path,
    config: LayoutConfig,
    channels: Mapping[str, str],
    skip_missing: bool,
) -> Screen:
    """A checked screen of fields (known columns) and their files, with the plate map where there is one.

    `every` has a column a channel of the table, of which `channels` (our name: the column) are taken.
    """
    for name in ("plate", "well"):
        if name not in fields:
            raise InputError(f"{table}: no column for the {name}; add it (docs/formats.md names the columns)")
    left_out: dict[str, int] = {}
    if n_unnamed := count_unnamed(source, (str(text) for text in every.to_numpy().ravel() if pd.notna(text))):
        left_out["images that the table does not name"] = n_unnamed
    files = every[list(channels.values())].set_axis([f"{FILE}{ours}" for ours in channels], axis=1)
    lacking = files.isna().any(axis=1).to_numpy()
    if lacking.any():
        row = int(lacking.argmax())
        channel = list(channels)[int(files.isna().iloc[row].to_numpy().argmax())]
        if not skip_missing or lacking.all():
            raise InputError(
                f'{table.name}, row {row + 2}: channel "{channel}" has no file ({int(lacking.sum()):,} such rows); '
                "fill it in, choose --channels, or run with --skip-missing; no crop was written."
            )
        left_out["fields without an image of each channel"] = int(lacking.sum())
    joined = pd.concat([fields, files], axis=1)[~lacking].reset_index(drop=True)
    sources = {table.name: sha256(table)}
    map_path = config.plate_map_path(source)
    if map_path is not None:
        joined, more = with_plate_map(joined, read_plate_map(map_path), source=map_path.name, skip_missing=skip_missing)
        left_out |= more
        sources[map_path.name] = sha256(map_path)
    joined = with_defaults(joined, controls=config.controls, source=(map_path or table).name)
    screen = checked_screen(joined, channels=list(channels), folder=source, source=table.name, sources=sources)
    return replace(screen, left_out=left_out)
