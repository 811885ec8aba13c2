"""Write a simulated screen to disk in BBBC021's layout, with the ground truth of every cell.

BBBC021_v1_image.csv, BBBC021_v1_moa.csv, Week<b>_<plate>/*.tif, Nuclei.csv, truth.parquet, simulation.json.
"""

import dataclasses
import json
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile

from phenolens.core import files
from phenolens.core.errors import InputError
from phenolens.core.progress import tell, track
from phenolens.core.workers import AtOnce, done_by_workers
from phenolens.screens.bbbc021 import IMAGE_TABLE, LABEL_TABLE, SIMULATION_FILE
from phenolens.screens.centres import NUCLEI_TABLE
from phenolens.simulation.microscope import PlateOptics, acquire, draw_cells, plate_optics
from phenolens.simulation.phenotypes import sample_cells
from phenolens.simulation.screen_design import (
    CHANNELS,
    SimulateConfig,
    fields,
    file_name,
    labels,
    random_for,
    targets,
)

TRUTH_TABLE, CONFIG_FILE = "truth.parquet", SIMULATION_FILE
DRAWING = 1  # version of the rendering: increase it when the same settings give different images


def simulate(out: Path, config: SimulateConfig, *, processes: int = 1) -> None:
    """Simulate a screen and write it to a folder; an interrupted simulation resumes.

    The image table is written last, so a folder that has it is complete.

    Args:
        out: new or empty folder, or one with part of the same screen; existing fields are kept.
        config: settings of the screen.
        processes: number of wells simulated in parallel; does not change the output.

    Raises:
        InputError: the folder holds other files; nothing was written.
    """
    out = Path(out)
    design = fields(config)
    content = {"phenolens": "simulated screen", "drawing": DRAWING, "config": dataclasses.asdict(config)}
    if check_folder(out, config, design, content=content):
        tell(f"{out}: this simulated screen is complete")
        return
    files.write_json(out / CONFIG_FILE, content)
    wells = [group for _, group in design.groupby(["plate", "well"], sort=False)]
    with closing(done_by_workers(partial(draw_well, out, config), wells, AtOnce(processes))) as truths:
        truth = _concatenated(list(track(truths, "drawing wells", total=len(wells))))
    nuclei = truth[["table_number", "image_number", "object_number", "x_px", "y_px"]]
    nuclei = nuclei.set_axis(
        ["TableNumber", "ImageNumber", "ObjectNumber", "Location_Center_X", "Location_Center_Y"], axis=1
    )
    files.write_text(out / NUCLEI_TABLE, nuclei.to_csv(index=False, lineterminator="\n"))
    files.write_parquet(out / TRUTH_TABLE, truth, about=content)
    files.write_text(out / LABEL_TABLE, label_csv(config))
    files.write_text(out / IMAGE_TABLE, image_table(config, design).to_csv(index=False, lineterminator="\n"))


def image_table(config: SimulateConfig, design: pd.DataFrame) -> pd.DataFrame:
    """Image table of BBBC021, one row per field; as there, PathName includes a parent folder that is not on disk."""
    table = pd.DataFrame({"TableNumber": design["table_number"], "ImageNumber": design["image_number"]})
    place = list(zip(design["plate"], design["well"], design["site"], strict=True))
    for channel in CHANNELS:
        table[f"Image_FileName_{channel}"] = [file_name(config, *field, channel) for field in place]
        table[f"Image_PathName_{channel}"] = "Week" + design["batch"] + "/" + design["plate"]
    table["Image_Metadata_Plate_DAPI"] = design["plate"]
    table["Image_Metadata_Well_DAPI"] = design["well"]
    table["Replicate"] = design["replicate"]
    table["Image_Metadata_Compound"] = design["compound"]
    table["Image_Metadata_Concentration"] = design["concentration_um"].map(lambda value: f"{value:g}")
    return table


def label_csv(config: SimulateConfig) -> str:
    """Label file of BBBC021: quoted names, concentrations with six decimals."""
    rows = labels(config).itertuples(index=False)
    lines = [f'"{row.compound}",{row.concentration:.6f},"{row.moa}"' for row in rows]
    return "\n".join(['"compound",concentration,"moa"', *lines]) + "\n"


def check_folder(out: Path, config: SimulateConfig, design: pd.DataFrame, *, content: dict[str, Any]) -> bool:
    """Whether `out` holds the whole simulation; InputError unless it is new, empty or holds only files of it."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise InputError(f"{out} is a file; expected a new or empty folder for the simulated screen.")
    tables = (IMAGE_TABLE, LABEL_TABLE, NUCLEI_TABLE, TRUTH_TABLE, CONFIG_FILE)
    expected = {out / name for name in tables} | {
        out / plate / file_name(config, plate, well, site, channel)
        for plate, well, site in zip(design["plate"], design["well"], design["site"], strict=True)
        for channel in CHANNELS
    }
    whole = frozenset(expected)
    expected |= {path.with_name(f".{path.name}.partial") for path in expected}
    folders = {out / plate for plate in design["plate"].unique()}
    for path in sorted(out.rglob("*")):
        if path not in expected and not (path in folders and path.is_dir()):
            raise InputError(
                f'{out}: not empty, found "{path.relative_to(out)}", which is not part of this simulated screen; '
                "give a new or empty folder. Nothing was changed."
            )
    found = sorted(path for path in out.rglob("*") if path.is_file() and not path.name.endswith(".partial"))
    if not found:
        return False
    if not (out / CONFIG_FILE).exists() or json.loads((out / CONFIG_FILE).read_text()) != content:
        raise InputError(
            f"{out}: not empty, and its {CONFIG_FILE} is missing or has other settings; "
            "give the same settings to resume, or a new or empty folder. Nothing was changed."
        )
    return set(found) == whole


def draw_well(out: Path, config: SimulateConfig, well: pd.DataFrame) -> pd.DataFrame:
    """Write the missing images of a well and return the ground truth, one row per cell.

    `well` holds the well's rows of the design. A field depends only on the settings, its plate, well and site.
    """
    truths = []
    for record in well.to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        optics = plate_optics(
            random_for(config.seed, "batch", row["batch"]),
            random_for(config.seed, "plate", row["plate"]),
            batch_effect=config.batch_effect,
            unevenness=config.unevenness,
        )
        name = (row["plate"], row["well"], row["site"])
        cells = sample_cells(
            random_for(config.seed, "cells", *name),
            target=targets(config)[row["compound"]],
            strength=row["strength"],
            n_expected=config.cells * optics.density_factor,
            height_px=config.field_height_px,
            width_px=config.field_width_px,
            size_factor=optics.size_factor,
        )
        paths = [out / row["plate"] / file_name(config, *name, channel) for channel in CHANNELS]
        if not all(path.exists() for path in paths):
            rng = random_for(config.seed, "drawing", *name)
            size = {"height_px": config.field_height_px, "width_px": config.field_width_px}
            light = draw_cells(cells, rng, seed=config.seed, **size)
            for path, image in zip(paths, acquire(light, optics, rng, noise=config.noise), strict=True):
                _write_tiff(path, image)
        truths.append(_ground_truth(cells, row, optics, config))
    return _concatenated(truths)


def _ground_truth(
    cells: pd.DataFrame, row: dict[str, Any], optics: PlateOptics, config: SimulateConfig
) -> pd.DataFrame:
    """Treatment, parameters and plate optics of the cells centred in the field, one row per cell."""
    in_field = cells["y_px"].between(0, config.field_height_px - 1) & cells["x_px"].between(
        0, config.field_width_px - 1
    )
    own = cells[in_field].reset_index(drop=True)
    drawn = own.astype({name: "float32" for name in own.columns if name not in ("y_px", "x_px", "state")})
    treatment = pd.DataFrame([row]).iloc[[0] * len(own)].reset_index(drop=True)
    treatment["object_number"] = np.arange(1, len(own) + 1)
    effects = pd.DataFrame([_plate_effects(optics)] * len(own), index=own.index, dtype="float32")
    return pd.concat([treatment, drawn, effects], axis=1)


def _plate_effects(optics: PlateOptics) -> dict[str, float]:
    """The optics as named numbers; illumination_<channel>_<k> are the coefficients of PlateOptics in their order."""
    effects = {"size_factor": optics.size_factor, "density_factor": optics.density_factor}
    for c, channel in enumerate(("dna", "tubulin", "actin")):
        effects[f"gain_{channel}"] = float(optics.gain[c])
        effects[f"blur_px_{channel}"] = float(optics.blur_px[c])
        effects[f"background_{channel}"] = float(optics.background[c])
        for k, coefficient in enumerate(optics.illumination[c].tolist()):
            effects[f"illumination_{channel}_{k}"] = coefficient
    return effects


def _concatenated(truths: list[pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the tables; fields without cells add no rows."""
    return pd.concat([truth for truth in truths if len(truth)] or truths[:1], ignore_index=True)


def _write_tiff(path: Path, image: np.ndarray) -> None:
    with files.write_whole(path) as file:
        tifffile.imwrite(file, image, photometric="minisblack", metadata=None, software=False)
