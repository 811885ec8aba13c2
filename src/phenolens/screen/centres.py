"""Read a table of nucleus centres, as CellProfiler writes it, and join it to a screen's fields."""

from pathlib import Path

import numpy as np
import pandas as pd

from phenolens.errors import InputError
from phenolens.screen.table import Screen, well_name

DEFAULT_NAME = "Nuclei.csv"  # in a source folder
NUMBER_KEYS = {"TableNumber": "table_number", "ImageNumber": "image_number"}
NAME_KEYS = {"plate": "plate", "well": "well", "site": "site"}
CENTRE_COLUMNS = {"ObjectNumber": "object_number", "Location_Center_Y": "y", "Location_Center_X": "x"}


def read_centres(path: Path, screen: Screen) -> pd.DataFrame:
    """One row a nucleus in the screen's fields: `plate`, `well`, `site`, `object_number`, `y`, `x`.

    y (row) and x (column) are pixels, the centre of the first pixel is 0, 0. The table names the field by
    `TableNumber` and `ImageNumber` (the screen must have them, as BBBC021 does), by `Metadata_Plate`, `Metadata_Well`
    and `Metadata_Site` or by `plate`, `well` and `site`. Nuclei in fields that the screen does not have are left out.
    Rows are sorted by field and object number. Raises InputError for a missing column, a value that is no number, a
    nucleus listed twice, and when no row is in a field of the screen.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a table of nucleus centres ({', '.join(CENTRE_COLUMNS)})")
    try:
        raw = pd.read_csv(path, encoding="utf-8-sig", low_memory=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a table of comma-separated values ({error})") from error
    keys = _keys(raw, screen, source=path.name)
    missing = [name for name in CENTRE_COLUMNS if name not in raw.columns]
    if missing:
        raise InputError(f"{path.name}: no column {', '.join(missing)} (found: {', '.join(map(str, raw.columns))})")
    nuclei = raw[[*keys, *CENTRE_COLUMNS]].rename(columns={**keys, **CENTRE_COLUMNS})
    for raw_name, name in CENTRE_COLUMNS.items():
        nuclei[name] = pd.to_numeric(nuclei[name], errors="coerce")
        bad = ~np.isfinite(nuclei[name].to_numpy(float))
        if bad.any():
            first = int(bad.argmax())
            raise InputError(
                f'{path.name}, row {first + 2}: {raw_name} is "{raw[raw_name].iloc[first]}", expected a number '
                f"({int(bad.sum()):,} such rows); correct the table"
            )
    nuclei = nuclei.astype({"object_number": np.int64, "y": float, "x": float})
    if "well" in nuclei:
        nuclei["well"] = nuclei["well"].map({well: well_name(well) for well in nuclei["well"].unique()})
        nuclei["plate"] = nuclei["plate"].astype(str)
    fields = screen.table[list(dict.fromkeys([*keys.values(), "plate", "well", "site"]))]
    joined = nuclei.merge(fields, on=list(keys.values()), how="inner", validate="many_to_one")
    if joined.empty:
        raise InputError(
            f"{path.name}: none of its {len(nuclei):,} nuclei is in a field of the screen "
            f"(joined by {', '.join(keys)}); give the centres of this screen"
        )
    centres = joined[["plate", "well", "site", *CENTRE_COLUMNS.values()]]
    twice = centres.duplicated(["plate", "well", "site", "object_number"])
    if twice.any():
        row = centres[twice].iloc[0]
        raise InputError(
            f'{path.name}: plate "{row["plate"]}", well "{row["well"]}", site {row["site"]} has object '
            f"{row['object_number']} twice ({int(twice.sum()):,} such rows); correct the table"
        )
    return centres.sort_values(["plate", "well", "site", "object_number"]).reset_index(drop=True)


def _keys(raw: pd.DataFrame, screen: Screen, *, source: str) -> dict[str, str]:
    """The columns that name the field, as the table has them: as the screen has them."""
    if set(NUMBER_KEYS) <= set(raw.columns) and set(NUMBER_KEYS.values()) <= set(screen.table.columns):
        return NUMBER_KEYS
    for prefix in ("Metadata_", "metadata_", ""):
        for names in (("Plate", "Well", "Site"), ("plate", "well", "site")):
            found = {f"{prefix}{name}": name.lower() for name in names}
            if set(found) <= set(raw.columns):
                return found
    raise InputError(
        f"{source}: no columns that name the field: expected {', '.join(NUMBER_KEYS)}, or Metadata_Plate, "
        f"Metadata_Well, Metadata_Site (found: {', '.join(map(str, raw.columns))})"
    )
