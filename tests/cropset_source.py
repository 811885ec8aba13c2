"""A source folder as the public crop set lies on disk, small enough to know every pixel."""

from pathlib import Path

import numpy as np
import pandas as pd

SIDE = 8
FOLDER = "singh_cp_pipeline_singlecell_images"
WELLS = {"B02": ("DMSO", 0.0, "DMSO"), "B03": ("drug/one", 0.3, "Actin disruptors"), "B04": ("drug two", 5.0, None)}


def known_crop(number: int) -> np.ndarray:
    """Crop S x S x (DNA, actin, tubulin): a ramp that begins at 1000, 2000 and 3000, plus ten times its number."""
    ramp = np.arange(SIDE * SIDE).reshape(SIDE, SIDE, 1)
    return (ramp + [1_000, 2_000, 3_000] + 10 * number).astype(np.uint16)


def write_cropset(folder: Path) -> Path:
    """metadata.csv and two crops (objects 1 and 12) in the only field of each well of two plates."""
    rows = []
    for plate, table_number in (("Week4_27861", 4), ("Week10_40111", 0)):
        for well, (compound, concentration_um, moa) in WELLS.items():
            field = f"{well}_s3_w1{plate[-3:]}AB-0"
            row = {"Multi_Cell_Image_Name": field, "TableNumber": table_number, "ImageNumber": 5}
            row |= {f"Image_FileName_{word}": f"{well}_s3_w2CD.tif" for word in ("DAPI", "Tubulin", "Actin")}
            row |= {"Image_Metadata_Plate_DAPI": plate, "Image_Metadata_Well_DAPI": well, "moa": moa}
            row |= {"Image_Metadata_Compound": compound, "Image_Metadata_Concentration": concentration_um}
            (folder / FOLDER / field).mkdir(parents=True)
            for object_number in (12, 1):
                name = f"{field}_{object_number}.npy"
                np.save(folder / FOLDER / field / name, known_crop(len(rows)))
                rows.append({**row, "Single_Cell_Image_Id": object_number, "Single_Cell_Image_Name": name})
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return folder
