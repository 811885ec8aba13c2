"""Read a table of nucleus centres, as CellProfiler writes it, and join it to a screen's fields."""

from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.errors import InputError
from phenolens.screen.csv_table import numbers, read_csv
from phenolens.screen.table import FIELD, Screen, well_names

DEFAULT_NAME = "Nuclei.csv"  # in a source folder
NUMBER_KEYS = {"TableNumber": "table_number", "ImageNumber": "image_number"}
CENTRE_COLUMNS = {"ObjectNumber": "object_number", "Location_Center_Y": "y", "Location_Center_X": "x"}
PLATE_COLUMNS = ("Metadata_Plate", "Image_Metadata_Plate", "plate")  # read as text: plate 007 is not 7


def read_centres(path: Path, screen: Screen) -> pd.DataFrame:
    """One row a nucleus in the screen's fields: `plate`, `well`, `site`, `object_number`, `y`, `x`.

    y (row) and x (column) are pixels, the centre of the first pixel is 0, 0. The table names the field by
    `TableNumber` and `ImageNumber` (the screen must have them, as BBBC021 does), by `Metadata_Plate`, `Metadata_Well`
    and `Metadata_Site` or by `plate`, `well` and `site`. Nuclei in fields that the screen does not have are left out.
    Rows are sorted by field and object number. Raises InputError for a missing column, a value that is no number, a
    nucleus listed twice, and when no row is in a field of the screen.
    """
    path = Path(path)
    raw = read_csv(path, columns=CENTRE_COLUMNS, text=PLATE_COLUMNS)
    return joined_centres(raw, _keys(raw, screen, source=path.name), screen, source=path.name)


def joined_centres(raw: pd.DataFrame, keys: dict[str, str], screen: Screen, *, source: str) -> pd.DataFrame:
    """The table of read_centres from nuclei with CENTRE_COLUMNS and `keys` (their name: ours); InputError likewise."""
    nuclei = pd.DataFrame({ours: _key(raw, name, ours, source=source) for name, ours in keys.items()})
    for name, ours in CENTRE_COLUMNS.items():
        nuclei[ours] = numbers(raw, name, source=source)
    nuclei = nuclei.astype({"object_number": np.int64, "y": float, "x": float})
    fields = screen.table[list(dict.fromkeys([*keys.values(), *FIELD]))]
    _refuse_twice(fields, list(keys.values()), "the screen", "one row a field")
    joined = nuclei.merge(fields, on=list(keys.values()), how="inner")
    if joined.empty:
        raise InputError(
            f"{source}: none of its {len(nuclei):,} nuclei is in a field of the screen "
            f"(joined by {', '.join(keys)}); give the centres of this screen"
        )
    centres = joined[[*FIELD, *CENTRE_COLUMNS.values()]]
    _refuse_twice(centres, [*FIELD, "object_number"], source, "one row a nucleus")
    return centres.sort_values([*FIELD, "object_number"]).reset_index(drop=True)


def _keys(raw: pd.DataFrame, screen: Screen, *, source: str) -> dict[str, str]:
    """The columns that name the field: as the table has them, as the screen has them."""
    if set(NUMBER_KEYS) <= set(raw.columns) and set(NUMBER_KEYS.values()) <= set(screen.table.columns):
        return NUMBER_KEYS
    for plate, well, site in (("Metadata_Plate", "Metadata_Well", "Metadata_Site"), ("plate", "well", "site")):
        if {plate, well, site} <= set(raw.columns):
            return {plate: "plate", well: "well", site: "site"}
    raise InputError(
        f"{source}: no columns that name the field: expected {', '.join(NUMBER_KEYS)}, or Metadata_Plate, "
        f"Metadata_Well, Metadata_Site (found: {', '.join(map(str, raw.columns))})"
    )


def _key(raw: pd.DataFrame, name: str, ours: str, *, source: str) -> pd.Series:
    if ours == "well":
        return raw[name].map(well_names(raw[name], source=source))
    return raw[name].astype(str) if ours == "plate" else numbers(raw, name, source=source)


def _refuse_twice(table: pd.DataFrame, keys: list[str], source: str, expected: str) -> None:
    twice = table.duplicated(keys)
    if twice.any():
        row = table[twice].iloc[0]
        where = ", ".join(f"{key} {row[key]}" for key in keys)
        raise InputError(f"{source}: {where} stands there twice ({int(twice.sum()):,} such rows); expected {expected}")
