"""Read scPortrait's single-cell images (`.h5sc`): an AnnData file whose `obsm/single_cell_images` holds the crops.

The array is cells x (masks, then channels) x height x width; `var` names them and says which are masks.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.screens.bbbc021 import Treatments, labelled
from phenolens.screens.config import LayoutConfig, chosen_channels, given_path
from phenolens.screens.plate_map import known_columns, read_plate_map, with_defaults, with_plate_map
from phenolens.screens.screen import FIELD, METADATA, Screen, checked_screen, select

IMAGES = "obsm/single_cell_images"
CELL_ID = "cell_id"
OBJECT_NUMBER = "Metadata_ObjectNumber"  # of files that phenolens wrote
CELL = ["object_number", "y", "x"]


def h5sc_file(source: Path, config: LayoutConfig) -> Path:
    """The file meant: the one given with `--table`, else the only `.h5sc` in the folder."""
    if config.table is not None:
        return given_path(config.table, source)
    found = sorted(Path(source).glob("*.h5sc")) if Path(source).is_dir() else [Path(source)]
    if len(found) != 1 or not found[0].is_file():
        raise InputError(f"{source}: {len(found)} files named *.h5sc; expected one, or name it with --table")
    return found[0]


def read_h5sc(
    source: Path,
    *,
    config: LayoutConfig,
    treatments: Treatments = "labelled",
    plates: Iterable[str] = (),
    wells: Iterable[str] = (),
    sites: Iterable[int] = (),
    skip_missing: bool = False,
) -> tuple[Screen, pd.DataFrame, list[int]]:
    """The screen, one row a cell (`plate`, `well`, `site`, `object_number`, `path`: its row), each channel's place.

    Plate and well of a cell, and what was done to it, come from columns of `obs` (any of plate_map's names) and the
    plate map; without a plate column the file is one plate, named after the file. Masks are not taken. Raises
    InputError for another kind of file, no well column, and as checked_screen does.
    """
    path = h5sc_file(source, config)
    obs, names = _tables(path)
    known = known_columns(obs, source=path.name)
    if "well" not in known:
        raise InputError(f"{path}: no column of obs says the well (found: {', '.join(map(str, obs.columns))})")
    rows = known.assign(path=np.arange(len(obs)).astype(str))
    for name, value in (("plate", path.stem), ("site", 1)):
        if name not in rows:
            rows[name] = value
    number = next((name for name in (OBJECT_NUMBER, CELL_ID) if name in obs), None)
    rows["object_number"] = np.arange(1, len(obs) + 1) if number is None else obs[number].to_numpy(np.int64)
    for ours in ("y", "x"):
        rows[ours] = obs[METADATA[ours]].to_numpy(float) if METADATA[ours] in obs else np.nan
    fields = rows.drop(columns=[*CELL, "path"]).drop_duplicates()
    left_out: dict[str, int] = {}
    plate_map = config.plate_map_path(source)
    if plate_map is not None:
        fields, left_out = with_plate_map(
            fields, read_plate_map(plate_map), source=plate_map.name, skip_missing=skip_missing
        )
    fields = with_defaults(fields, controls=config.controls, source=path.name)
    channels = chosen_channels(list(names), config.channels, source=path.name)
    screen = checked_screen(
        fields, channels=tuple(channels), folder=path.parent, source=path.name, sources={path.name: sha256(path)}
    )
    if treatments == "labelled" and not screen.table["moa"].notna().any():
        raise InputError(
            f"{path}: no treatment has a mechanism; run with --treatments all, or add those that are known"
        )
    screen = replace(screen, left_out=left_out)
    screen = select(labelled(screen) if treatments == "labelled" else screen, plates=plates, wells=wells, sites=sites)
    cells = rows[[*FIELD, *CELL, "path"]].merge(screen.table[FIELD])
    cells = cells.sort_values([*FIELD, "object_number"], kind="stable").reset_index(drop=True)
    return screen, cells, [names[theirs] for theirs in channels.values()]


def side_px(path: Path) -> int:
    """The side of the file's images, pixels."""
    import h5py

    with h5py.File(path) as file:
        return int(file[IMAGES].shape[-1])


def _tables(path: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of `obs`, and the place of each channel that is no mask, by its name."""
    import h5py
    from anndata.io import read_elem

    try:
        with h5py.File(path) as file:
            obs: Any = read_elem(file["obs"])
            var: Any = read_elem(file["var"])
            shape = file[IMAGES].shape
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a set of single-cell images of scPortrait ({error}); replace it") from error
    if len(shape) != 4 or shape[:2] != (len(obs), len(var)) or not {"channels", "channel_mapping"} <= set(var):
        raise InputError(
            f"{path}: {IMAGES} has shape {shape}, obs {len(obs)} rows and var {len(var)} (columns "
            f"{', '.join(map(str, var))}); expected cells x channels x height x width, and var with channels and "
            "channel_mapping"
        )
    is_image = (var["channel_mapping"].astype(str) != "mask").to_numpy()
    names = {str(name): place for place, name in enumerate(var["channels"]) if is_image[place]}
    if len(names) != is_image.sum():
        raise InputError(f"{path}: two channels have one name; expected each once")
    return obs.reset_index(drop=True), names
