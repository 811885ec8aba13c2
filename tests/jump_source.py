"""A simulated source as JUMP-CP publishes it: five channels, batches, illumination functions, tables of what was done.

The project's simulator draws it; the two further channels are made of its three.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from phenolens.simulation.screen_design import SimulateConfig, fields, file_name, random_for
from phenolens.simulation.simulate import simulate

CHANNELS = ("AGP", "DNA", "ER", "Mito", "RNA")  # in the order of the tables
NEGATIVE, POSITIVE = "JCP2022_033924", "JCP2022_037716"
SOURCE = "source_4"


def write_jump(
    folder: Path, config: SimulateConfig, *, root: str, wells: int | None = None, work: Path | None = None
) -> pd.DataFrame:
    """`images`, `workspace` and `metadata` under a folder whose address will be `root`; the design, a row per field.

    With `wells` (384) each plate repeats its wells until it has as many.
    """
    drawn = work or folder.with_name(f"{folder.name}-drawn")
    simulate(drawn, config)
    design = fields(config)
    if wells is not None:
        design = pd.concat([_repeated(plate, wells) for _, plate in design.groupby("plate", sort=False)])
    else:
        design = design.assign(drawn=design["well"], copy=0)
    number = {name: f"JCP2022_{10_000 + n:06d}" for n, name in enumerate(sorted(design["compound"].unique()))}
    number |= {"DMSO": NEGATIVE, "taxol": POSITIVE}
    design = design.assign(jcp=design["compound"].map(number), batch="Batch" + design["batch"])
    for (batch, plate), rows in design.groupby(["batch", "plate"], sort=False):
        light = {channel: _light(config, plate, channel) for channel in CHANNELS}
        at = Path("images", batch, "images", plate)
        illum = Path("images", batch, "illum", plate)
        for part in (at, illum):
            (folder / part).mkdir(parents=True)
        for channel, function in light.items():
            np.save(folder / illum / f"{plate}_Illum{channel}.npy", function)
        table = []
        for row in rows.to_dict("records"):
            image = _five(drawn, config, row)
            line = {f"Metadata_{name}": row[name.lower()] for name in ("Batch", "Plate", "Well", "Site")}
            line = {"Metadata_Source": SOURCE, **line}
            for channel in CHANNELS:
                name = f"{row['well']}_s{row['site']}_{channel}.tiff"
                lit = np.clip(np.rint(image[channel] * light[channel]), 0, 65_535).astype(np.uint16)
                tifffile.imwrite(folder / at / name, lit, compression="zlib")
                line |= {f"FileName_Orig{channel}": name, f"PathName_Orig{channel}": f"{root}/{at.as_posix()}/"}
                line |= {f"FileName_Illum{channel}": f"{plate}_Illum{channel}.npy"}
                line |= {f"PathName_Illum{channel}": f"{root}/{illum.as_posix()}"}
            table.append(line)
        load_data = folder / "workspace" / "load_data_csv" / batch / plate
        load_data.mkdir(parents=True)
        pd.DataFrame(table).to_parquet(load_data / "load_data_with_illum.parquet")
    _write_metadata(folder / "metadata", design)
    return design


def _write_metadata(folder: Path, design: pd.DataFrame) -> None:
    """The JCP2022 tables."""
    folder.mkdir()
    wells = design.drop_duplicates(["plate", "well"])
    table = pd.DataFrame({"Metadata_Source": SOURCE, "Metadata_Plate": wells["plate"], "Metadata_Well": wells["well"]})
    table.assign(Metadata_JCP2022=wells["jcp"]).to_csv(folder / "well.csv.gz", index=False)
    plates = design.drop_duplicates("plate")
    table = pd.DataFrame({"Metadata_Batch": plates["batch"], "Metadata_Plate": plates["plate"]})
    table.assign(Metadata_PlateType="COMPOUND").to_parquet(folder / "plate.parquet")
    compounds = design.drop_duplicates("jcp")
    table = pd.DataFrame({"Metadata_JCP2022": compounds["jcp"], "Metadata_InChIKey": compounds["compound"]})
    table.assign(Metadata_target=compounds["mechanism"].replace("", None)).to_csv(
        folder / "compound.csv.gz", index=False
    )


def _repeated(plate: pd.DataFrame, n: int) -> pd.DataFrame:
    """The plate's wells, repeated until there are `n` of a plate of 384."""
    names = [f"{row}{column:02d}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)][:n]
    drawn = plate["well"].unique()
    pairs = pd.DataFrame({"to": names, "well": [drawn[i % len(drawn)] for i in range(n)]})
    pairs["copy"] = np.arange(n) // len(drawn)
    repeated = pairs.merge(plate, on="well")
    return repeated.rename(columns={"well": "drawn", "to": "well"})


def _five(drawn: Path, config: SimulateConfig, row: dict) -> dict[str, np.ndarray]:
    """The five channels of a field (H, W); copies of a well have noise of their own."""
    dapi, tubulin, actin = (
        tifffile.imread(drawn / row["plate"] / file_name(config, row["plate"], row["drawn"], row["site"], name))
        for name in ("DAPI", "Tubulin", "Actin")
    )
    images = {
        "AGP": actin,
        "DNA": dapi,
        "ER": tubulin,
        "Mito": np.maximum(tubulin // 2, actin // 2),
        "RNA": dapi // 2 + tubulin // 4,
    }
    rng = random_for(config.seed, row["plate"], row["well"], row["site"])
    noise = rng.integers(0, 16, (len(images), *dapi.shape), dtype=np.uint16) * (row["copy"] > 0)
    return {channel: image + of_copy for (channel, image), of_copy in zip(images.items(), noise, strict=True)}


def _light(config: SimulateConfig, plate: str, channel: str) -> np.ndarray:
    """An illumination function (H, W), at least 1: brightest at a place of the plate and channel."""
    y, x = np.mgrid[: config.field_height_px, : config.field_width_px]
    shift = sum(map(ord, plate + channel)) % 30
    far = np.hypot(y - config.field_height_px / 2 - shift, x - config.field_width_px / 2) / config.field_width_px
    return 1 + 0.4 * (1 - far / far.max())
