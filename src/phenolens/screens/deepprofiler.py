"""Read a screen from a project of DeepProfiler: metadata/index.csv, images and locations, in `inputs` or beside it."""

from pathlib import Path, PurePosixPath

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.screens.config import LayoutConfig, chosen_channels, given_path
from phenolens.screens.image_files import IMAGE_SUFFIXES, file_on_disk
from phenolens.screens.image_table import described_screen
from phenolens.screens.plate_map import known_columns, read_as_text
from phenolens.screens.screen import Screen

INPUTS, INDEX, IMAGES, LOCATIONS = "inputs", Path("metadata", "index.csv"), "images", "locations"
OUTLINES = "Outlines"  # masks of the cells, not a channel
OTHER_PICTURES = (".jpg", ".jpeg", ".jp2", ".bmp", ".gif", ".webp")  # kinds that are not read, most of them lossy
WITH_DOSE = "treatment"  # beside a column for the compound it is the compound with its dose


def read_deepprofiler(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of a project folder, or of its `inputs`: a row a field in `metadata/index.csv`.

    `Metadata_Plate`, `Metadata_Well` and `Metadata_Site` name the field; a column whose every value is the name of an
    image is a channel, its paths lie within `images` (as DeepProfiler joins them). Treatments are in columns as in
    plate_map.py, or in a plate map. Raises InputError as read_table does.
    """
    source = Path(source)
    inputs = inputs_folder(source)
    path = given_path(config.table, source) if config.table is not None else inputs / INDEX
    raw = read_as_text(path)
    found = [str(name) for name in raw.columns if _is_channel(str(name), raw[name])]
    if not found:
        raise InputError(
            f"{path}: no column holds the names of images, such as DNA (found: {', '.join(map(str, raw.columns))}); "
            f"expected paths within {inputs / IMAGES} that end in {', '.join(IMAGE_SUFFIXES)}"
        )
    channels = chosen_channels(found, config.channels, source=path.name)
    others = raw.drop(columns=[*found, OUTLINES], errors="ignore")
    _refuse_mixed(others, source=path.name)
    _refuse_other_pictures(others, source=path.name)
    within = PurePosixPath(inputs.relative_to(source).as_posix()) / IMAGES
    every = raw[found].map(lambda name: str(within / str(name).replace("\\", "/")), na_action="ignore")
    return described_screen(
        known_columns(_without_repeat(raw.drop(columns=found)), source=path.name),
        every,
        source=source,
        table=path,
        config=config,
        channels=channels,
        skip_missing=skip_missing,
    )


def inputs_folder(source: Path) -> Path:
    """The folder that holds metadata, images and locations: `inputs` in a project's folder, or the folder itself."""
    inside = Path(source) / INPUTS
    return inside if inside.is_dir() else Path(source)


def locations_folder(source: Path) -> Path | None:
    """Where a project has its cells' centres; None where it has none."""
    folder = inputs_folder(source) / LOCATIONS
    return folder if folder.is_dir() else None


def _is_channel(name: str, values: pd.Series) -> bool:
    named = values.dropna()
    return name != OUTLINES and len(named) > 0 and bool(_are_images(named).all())


def _are_images(named: pd.Series) -> pd.Series:
    return named.map(lambda value: file_on_disk(value).suffix.lower() in IMAGE_SUFFIXES)


def _refuse_mixed(others: pd.DataFrame, *, source: str) -> None:
    """InputError for a column with images in some rows and something else in others: a channel would be lost."""
    for name in others:
        are_images = _are_images(others[name].dropna())
        if are_images.any():
            row = are_images.index[int((~are_images).to_numpy().argmax())]
            raise InputError(
                f'{source}, row {row + 2}: {name} is "{others[name][row]}", while {int(are_images.sum()):,} other rows '
                f"have an image there that ends in {', '.join(IMAGE_SUFFIXES)}; correct it, or take the column out"
            )


def _refuse_other_pictures(others: pd.DataFrame, *, source: str) -> None:
    """InputError for a column of pictures of a kind that is not read: a channel would be lost."""
    for name in others:
        for row, value in others[name].dropna().items():
            if file_on_disk(str(value)).suffix.lower() in OTHER_PICTURES:
                raise InputError(
                    f'{source}, row {int(str(row)) + 2}: {name} is "{value}", of a kind that is not read; expected '
                    f"images that end in {', '.join(IMAGE_SUFFIXES)}; take the column out, or give such images"
                )


def _without_repeat(raw: pd.DataFrame) -> pd.DataFrame:
    """Without a column `Treatment` where another one gives the compound."""
    plain = {str(name): str(name).lower().removeprefix("metadata_") for name in raw.columns}
    twice = [name for name, short in plain.items() if short == WITH_DOSE]
    return raw.drop(columns=twice) if {"compound", "compound_name"} & set(plain.values()) else raw
