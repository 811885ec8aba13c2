"""A source folder in BBBC021's layout, small enough to know every pixel."""

from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import crops_of
from phenolens.crops.source import source_of_fields
from phenolens.crops.store import CropStore
from phenolens.screens.screen import Screen

HEIGHT, WIDTH = 40, 50
CHANNEL_WORDS = {"DNA": "DAPI", "tubulin": "Tubulin", "actin": "Actin"}
WELLS = {"B02": ("DMSO", 0.0), "B03": ("drug/one", 0.3), "B04": ("drug two", 5.0), "E02": ("taxol", 0.3)}
PLATES = {"Week1_22123": 1, "Week10_40111": 0}  # and their TableNumber
MECHANISMS = {("drug/one", 0.3): "Actin disruptors", ("taxol", 0.3): "Microtubule stabilizers"}  # drug two: not known


def known_pixel(channel: int, y: int, x: int) -> int:
    """What every field shows: its pixel's own address."""
    return (channel + 1) * (100 * y + x)


def write_source(folder: Path, *, weeks_as_folders: bool = False) -> Path:
    """Tables, a folder per plate (two sites per well) and Nuclei.csv with one nucleus per field, in `folder`."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rows, nuclei = [], []
    for plate, table_number in PLATES.items():
        week = plate.split("_")[0]
        on_disk = folder / week / plate if weeks_as_folders else folder / plate
        on_disk.mkdir(parents=True)
        fields = [(well, site) for well in WELLS for site in (1, 2)]
        for image_number, (well, site) in enumerate(fields, start=1):
            compound, concentration_um = WELLS[well]
            row = {"TableNumber": table_number, "ImageNumber": image_number}
            for channel, word in enumerate(CHANNEL_WORDS.values()):
                prefix = "" if table_number else "Week10_200907_"  # some weeks have none
                name = f"{prefix}{well}_s{site}_w{(1, 2, 4)[channel]}{plate[-3:]}AB-0.tif"
                row |= {f"Image_FileName_{word}": name, f"Image_PathName_{word}": f"{week}/{plate}"}
                tifffile.imwrite(on_disk / name, known_pixel(channel, y, x).astype(np.uint16))
            row |= {"Image_Metadata_Plate_DAPI": plate, "Image_Metadata_Well_DAPI": well, "Replicate": 9}
            row |= {"Image_Metadata_Compound": compound, "Image_Metadata_Concentration": concentration_um}
            rows.append(row)
            key = {"TableNumber": table_number, "ImageNumber": image_number, "ObjectNumber": 7}
            nuclei.append({**key, "Location_Center_X": 20.0 + image_number, "Location_Center_Y": 15.0})
    pd.DataFrame(rows).to_csv(folder / "BBBC021_v1_image.csv", index=False)
    labels = [(compound, dose, moa) for (compound, dose), moa in MECHANISMS.items()] + [("DMSO", 0, "DMSO")]
    write_labels(folder, labels)
    pd.DataFrame(nuclei).to_csv(folder / "Nuclei.csv", index=False)
    return folder


def write_labels(folder: Path, labels: list[tuple[str, float, str]]) -> None:
    """The label table with these rows."""
    table = pd.DataFrame(labels, columns=["compound", "concentration", "moa"])
    table.to_csv(folder / "BBBC021_v1_moa.csv", index=False)


def edit_csv(path: Path, edit) -> None:
    """Write the table in `path` anew as `edit` returns it."""
    edit(pd.read_csv(path)).to_csv(path, index=False)


def cut_crops(screen: Screen, centres: pd.DataFrame, folder: Path, *, config: CropConfig | None = None) -> CropStore:
    """Crops around these centres of a screen's fields."""
    return crops_of(source_of_fields(screen, centres), folder, config=config)
