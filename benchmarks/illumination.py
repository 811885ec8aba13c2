"""How well the light over a simulated screen's fields is recovered, and what is left of it in the cells.

    python benchmarks/illumination.py OUT                        # two plates of 240 fields, about five minutes
    python benchmarks/illumination.py OUT --field-width-px 1280 --field-height-px 1024 --cells 100   # of BBBC021's size

The simulated microscope's light is known. Estimates from more and more fields of a plate (in random order) are compared
with it; then the mean intensity of each cell is regressed on its place in the field (x, y and their squares and
product), before and after correction, and after division by the planted light itself, which is as good as it gets.
OUT gets the screen (made once), `light.csv`, `cells.csv` and a picture. Killed, the same command goes on at the screen.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from tyro.conf import OmitArgPrefixes, Positional

from phenolens.core.errors import InputError
from phenolens.core.files import write_text, write_whole
from phenolens.core.progress import tell, track
from phenolens.crops.config import IlluminationConfig
from phenolens.crops.illumination import FieldSums, Illumination, corrected, illumination_of
from phenolens.plotting.quality_figures import illumination as illumination_figure
from phenolens.plotting.style import png
from phenolens.screens.bbbc021 import read_bbbc021
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import Screen
from phenolens.simulation.microscope import illumination_field
from phenolens.simulation.screen_design import SimulateConfig
from phenolens.simulation.simulate import TRUTH_TABLE, simulate

COUNT = 16  # a camera count is 16 in the images: 12 bits in 16
CELL_PX = 41  # side of the square around a cell's centre whose mean is the cell's intensity
WAYS: dict[str, dict] = {
    "keep": {"offset": "keep"},
    "subtract": {"offset": "subtract"},
    "foreground": {"average": "foreground", "offset": "subtract"},
}


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    out: Positional[Path]  # folder for the screen, the tables and the picture
    fields: tuple[int, ...] = (24, 60, 120, 240)  # how many of a plate's fields are averaged
    smooth_px: tuple[int, ...] = (96, 320)  # diameters of the median filter
    pictured_px: int = 96  # the one that is pictured, of foreground pixels, from all fields
    order_seed: int = 0  # of the order in which fields are taken
    processes: int = 1  # that draw the screen
    # the screen; a plate has at most 60 wells
    screen: SimulateConfig = field(default_factory=lambda: SimulateConfig(replicates=1, sites=4))


@dataclass(frozen=True)
class Plate:
    """A plate's fields and the truth about its camera."""

    name: str
    fields: pd.DataFrame  # a row per field
    cells: pd.DataFrame  # a row per cell: well, site, x_px, y_px
    planted: np.ndarray  # (C, H, W) relative light
    background: np.ndarray  # (C,) values without light


def main(flags: Flags) -> None:
    """Draw the screen, estimate its light, look what is left of it in the cells, write tables and the picture."""
    folder = flags.out / "screen"
    simulate(folder, flags.screen, processes=flags.processes)
    screen = read_bbbc021(folder, images=folder, treatments="all")
    light_rows, cell_rows = [], []
    for plate in plates(screen):
        estimates, rows = estimated(screen, plate, flags)
        light_rows += rows
        cell_rows += positions(screen, plate, estimates)
        if len(light_rows) == len(rows):  # of the first plate
            write_picture(screen, plate, estimates[f"{flags.pictured_px} px, foreground"], flags)
    light, cells = pd.DataFrame(light_rows), pd.DataFrame(cell_rows)
    write_text(flags.out / "light.csv", light.to_csv(index=False))
    write_text(flags.out / "cells.csv", cells.to_csv(index=False))
    print("Mean absolute relative error of the light, percent: mean over plates (least to most)\n")
    print(pivoted(light, ["fields", "correction"], "error_percent"))
    print("\nShare of the cells' variance that their place explains (R²), percent\n")
    print(pivoted(cells, ["correction"], "r2_percent"))
    print("\nStandard deviation of what their place explains, percent of the mean above background\n")
    print(pivoted(cells, ["correction"], "spread_percent"))


def plates(screen: Screen) -> Iterator[Plate]:
    """Each plate with its truth."""
    truth = pd.read_parquet(screen.folder / TRUTH_TABLE)
    for name, fields in screen.table.groupby("plate"):
        cells = truth[truth["plate"] == name]
        height, width = read(screen, fields.iloc[0]).shape[1:]
        optics = cells.iloc[0]
        light = [
            illumination_field(
                np.array([optics[f"illumination_{channel.lower()}_{k}"] for k in range(5)], float),
                height_px=height,
                width_px=width,
            )
            for channel in screen.channels
        ]
        background = COUNT * np.array([optics[f"background_{channel.lower()}"] for channel in screen.channels], float)
        yield Plate(str(name), fields, cells[["well", "site", "x_px", "y_px"]], np.stack(light), background)


def read(screen: Screen, row: pd.Series) -> np.ndarray:
    """A field (C, H, W)."""
    paths = {channel: screen.folder / row[f"file_{channel}"] for channel in screen.channels}
    return read_field(paths, where=f'plate "{row["plate"]}", well "{row["well"]}", site {row["site"]}')


def estimated(screen: Screen, plate: Plate, flags: Flags) -> tuple[dict[str, Illumination], list[dict]]:
    """The illumination by each setting from all fields asked for, and its error for each number of fields."""
    order = np.random.default_rng(flags.order_seed).permutation(len(plate.fields))[: max(flags.fields)]
    sums = FieldSums(screen.channels, f'plate "{plate.name}"')
    estimates: dict[str, Illumination] = {}
    rows = [
        {"plate": plate.name, "fields": 0, "correction": "none", "channel": name, "error_percent": error}
        for name, error in zip(screen.channels, errors(np.ones_like(plate.planted), plate.planted))
    ]
    for place in track(order.tolist(), f"{plate.name}: fields averaged", total=len(order)):
        sums.add(read(screen, plate.fields.iloc[place]))
        if sums.n_fields not in flags.fields:
            continue
        for smooth_px in flags.smooth_px:
            for way, settings in WAYS.items():
                config = IlluminationConfig(smooth_px=smooth_px, least_fields=1, **settings)
                light = illumination_of(sums, config=config)
                name = f"{smooth_px} px, {way}"
                estimates[name] = light
                of = {"plate": plate.name, "fields": sums.n_fields, "correction": name}
                found = zip(screen.channels, errors(light.functions, plate.planted), light.offset, plate.background)
                rows += [
                    {**of, "channel": c, "error_percent": error, "offset": float(estimate), "background": truth}
                    for c, error, estimate, truth in found
                ]
    return estimates, rows


def errors(functions: np.ndarray, planted: np.ndarray) -> np.ndarray:
    """Mean absolute relative error (C,), percent, both (C, H, W) as shares of their mean."""
    ratio = shares(functions) / shares(planted)
    return 100 * np.abs(ratio - 1).mean((1, 2))


def shares(light: np.ndarray) -> np.ndarray:
    """Light (C, H, W) with mean 1 in each channel."""
    return light / light.mean((1, 2), keepdims=True)


def positions(screen: Screen, plate: Plate, estimates: dict[str, Illumination]) -> list[dict]:
    """What a cell's place in its field says about its intensity, without correction, with each, with the planted."""
    n, shape = len(plate.fields), plate.planted.shape
    nothing = Illumination(np.ones(shape, np.float32), np.zeros(shape[0], np.float32), 0)
    least = plate.planted.min((1, 2), keepdims=True)
    perfect = Illumination((plate.planted / least).astype(np.float32), plate.background.astype(np.float32), n)
    ways = {"none": nothing, **estimates, "planted": perfect}
    seen: dict[str, list[np.ndarray]] = {way: [] for way in ways}
    places = []
    of_field = dict(list(plate.cells.groupby(["well", "site"])))
    for _, row in track(plate.fields.iterrows(), f"{plate.name}: fields corrected", total=n):
        cells = of_field.get((row["well"], row["site"]))
        if cells is None:
            continue
        y, x = inside(cells, shape[1:])
        places.append(np.stack([y, x], 1) / (np.array(shape[1:]) - 1) * 2 - 1)
        pixels = read(screen, row)
        for way, light in ways.items():
            seen[way].append(box_means(pixels, light, y, x))
    place = np.concatenate(places)
    rows = []
    for way, light in ways.items():
        intensity = np.concatenate(seen[way])
        left = (plate.background - light.offset) * (1 / light.functions).mean((1, 2))  # of the background, on average
        for c, channel in enumerate(screen.channels):
            explained = quadratic(place, intensity[:, c])
            rows.append(
                {
                    "plate": plate.name,
                    "correction": way,
                    "channel": channel,
                    "cells": len(place),
                    "r2_percent": 100 * explained.var() / intensity[:, c].var(),
                    "spread_percent": 100 * explained.std() / (intensity[:, c].mean() - left[c]),
                }
            )
    return rows


def inside(cells: pd.DataFrame, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cells' centres whose square lies inside the field."""
    centres = np.rint(cells[["y_px", "x_px"]].to_numpy()).astype(int)
    fits = ((centres >= CELL_PX // 2) & (centres < np.array(size) - CELL_PX // 2)).all(1)
    return centres[fits, 0], centres[fits, 1]


def box_means(pixels: np.ndarray, light: Illumination, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Mean of the corrected square around each of n places of a field (C, H, W): (n, C)."""
    places = y - CELL_PX // 2, x - CELL_PX // 2
    boxes, functions = (
        np.lib.stride_tricks.sliding_window_view(image, (CELL_PX, CELL_PX), axis=(1, 2))[:, *places]
        for image in (pixels, light.functions)
    )
    return ((boxes - light.offset[:, None, None, None]) / functions).mean((2, 3)).T


def quadratic(place: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Least-squares fit of values (n,) by 1, y, x, y², y x, x² of their places (n, 2)."""
    y, x = place.T
    terms = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], 1)
    return terms @ np.linalg.lstsq(terms, values, rcond=None)[0]


def write_picture(screen: Screen, plate: Plate, light: Illumination, flags: Flags) -> None:
    """Planted and estimated light, and the plate's first field before and after."""
    before = read(screen, plate.fields.iloc[0])
    offset = light.offset[:, None, None]
    figure = illumination_figure(
        light.functions,
        before - offset,
        corrected(before, light),
        channels=screen.channels,
        n_fields=light.n_fields,
        planted=plate.planted,
        plate=plate.name,
        how=f"the mean of foreground pixels, smoothed over {flags.pictured_px} px, offset subtracted",
    )
    with write_whole(flags.out / "illumination.png") as file:
        file.write(png(figure))


def pivoted(table: pd.DataFrame, rows: list[str], value: str) -> str:
    """A Markdown table: a column per channel, `mean (least to most)` over plates."""
    grouped = table.groupby([*rows, "channel"], sort=False)[value]
    words = grouped.agg(lambda v: f"{v.mean():.1f} ({v.min():.1f} to {v.max():.1f})").unstack("channel", sort=False)
    words = words.reset_index()
    lines = [list(words.columns), ["---"] * len(words.columns), *words.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    try:
        main(tyro.cli(Flags, description=__doc__.splitlines()[0], config=(OmitArgPrefixes,)))
    except InputError as error:
        tell(f"illumination.py: {error}")
        sys.exit(2)
