"""Source folders in the layouts of other laboratories, small enough to know every pixel."""

from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
import zarr

from phenolens.core.keywords import keyword_settings
from phenolens.screens.config import LayoutConfig
from phenolens.screens.layouts import layout_named
from phenolens.screens.screen import LABELLED, Screen, Selection

HEIGHT, WIDTH = 40, 50
CHANNELS = ("DNA", "actin")
WELLS = {"B02": ("DMSO", 0.0, None), "B03": ("drug/one", 0.3, "Actin disruptors"), "C11": ("drug two", 5.0, None)}
PLATES = ("007", "p-2")
SITES = (1, 2)


def pixels(plate: str, well: str, site: int, channel: str) -> np.ndarray:
    """What a field shows: a ramp whose first value says which field and channel it is."""
    first = 1000 * PLATES.index(plate) + 100 * list(WELLS).index(well) + 10 * site + CHANNELS.index(channel)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (first + 64 * y + x).astype(np.uint16)


def fields() -> list[tuple[str, str, int]]:
    """Every plate, well and site."""
    return [(plate, well, site) for plate in PLATES for well in WELLS for site in SITES]


def write_images(folder: Path) -> Path:
    """`<plate>/<well>_s<site>_w<channel>.tif`."""
    for plate, well, site in fields():
        (folder / plate).mkdir(parents=True, exist_ok=True)
        for channel in CHANNELS:
            tifffile.imwrite(folder / plate / f"{well}_s{site}_w{channel}.tif", pixels(plate, well, site, channel))
    return folder


def write_plate_map(folder: Path) -> Path:
    """plate_map.csv with wells as B2, not B02."""
    rows = [
        (well.replace("0", ""), compound, dose if compound != "DMSO" else None, moa)
        for well, (compound, dose, moa) in WELLS.items()
    ]
    table = pd.DataFrame(rows, columns=["Metadata_Well", "Compound", "concentration", "MoA"])
    table.to_csv(folder / "plate_map.csv", index=False)
    return folder


def write_table(folder: Path) -> Path:
    """images.csv in plain columns, with what was done."""
    rows = []
    for plate, well, site in fields():
        compound, dose, moa = WELLS[well]
        row = {"plate": plate, "well": well, "site": site, "compound": compound, "concentration_um": dose, "moa": moa}
        rows.append(row | {f"file_{channel}": f"{plate}/{well}_s{site}_w{channel}.tif" for channel in CHANNELS})
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)
    return folder


def write_loaddata(folder: Path, *, path_name: str = "/mnt/nas/screen", **more) -> Path:
    """load_data.csv as CellProfiler's LoadData takes it, with paths of another machine; needs a plate map."""
    rows = []
    for plate, well, site in fields():
        row = {"Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Site": site} | more
        for channel in CHANNELS:
            row[f"FileName_{channel}"] = f"{well}_s{site}_w{channel}.tif"
            row[f"PathName_{channel}"] = f"{path_name}/{plate}"
        rows.append(row | {"FileName_IllumDNA": "illum.npy", "PathName_IllumDNA": path_name})
    pd.DataFrame(rows).to_csv(folder / "load_data.csv", index=False)
    return folder


def write_deepprofiler(folder: Path) -> Path:
    """inputs/metadata/index.csv as DeepProfiler has it, images and masks named from inputs/images on."""
    write_images(folder / "inputs" / "images")
    rows = []
    for plate, well, site in fields():
        compound, dose, moa = WELLS[well]
        row = {"Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Site": site, "Plate_Map_Name": "map"}
        row |= {channel: f"{plate}/{well}_s{site}_w{channel}.tif" for channel in CHANNELS}
        row |= {"Outlines": f"{plate}/{well}.png", "Compound": compound, "Concentration": dose, "moa": moa}
        rows.append(row | {"Treatment": f"{compound}@{dose:g}", "Split": "Training"})
    (folder / "inputs" / "metadata").mkdir()
    pd.DataFrame(rows).to_csv(folder / "inputs" / "metadata" / "index.csv", index=False)
    return folder


def write_locations(folder: Path) -> Path:
    """inputs/locations: a nucleus at y 20, x 25 of every field but the last, which has no file."""
    for plate, well, site in fields()[:-1]:
        at = folder / "inputs" / "locations" / plate
        at.mkdir(parents=True, exist_ok=True)
        centre = {"Nuclei_Location_Center_X": [25], "Nuclei_Location_Center_Y": [20]}
        pd.DataFrame(centre).to_csv(at / f"{well}-{site}-Nuclei.csv", index=False)
    return folder


def write_plates(folder: Path, *, zarr_format: int = 2, labels: tuple[str, ...] = CHANNELS) -> Path:
    """An OME-Zarr plate each, axes c, y, x."""
    for plate in PLATES:
        group = zarr.open_group(folder / f"{plate}.zarr", mode="w", zarr_format=zarr_format)
        rows, columns = ["B", "C"], ["2", "3", "11"]
        wells = []
        for well in WELLS:
            row, column = well[0], well[1:].lstrip("0")
            path = f"{row}/{column}"
            wells.append({"path": path, "rowIndex": rows.index(row), "columnIndex": columns.index(column)})
            of_well = group.create_group(path)
            say(of_well, {"well": {"images": [{"path": str(site - 1)} for site in SITES]}}, zarr_format)
            for site in SITES:
                image = of_well.create_group(str(site - 1))
                stack = np.stack([pixels(plate, well, site, channel) for channel in CHANNELS])
                image.create_array("0", data=stack, chunks=(1, HEIGHT, WIDTH))
                axes = [{"name": name} for name in "cyx"]
                ome: dict = {"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
                say(image, ome | {"omero": {"channels": [{"label": label} for label in labels]}}, zarr_format)
        names = {"rows": [{"name": name} for name in rows], "columns": [{"name": name} for name in columns]}
        say(group, {"plate": {**names, "wells": wells}}, zarr_format)
    return folder


def say(group: zarr.Group, ome: dict, zarr_format: int) -> None:
    """Attributes where the format has them."""
    group.attrs.update({"ome": ome} if zarr_format == 3 else ome)


@keyword_settings
def read_screen(
    source: Path, *, layout: str, config: LayoutConfig | None = None, selection: Selection = LABELLED
) -> Screen:
    """The screen of a source folder, each of its images known to exist."""
    return layout_named(layout).open(Path(source), config or LayoutConfig(), selection)[0]
