"""A study to travel in: the tiny screen with a compound at two doses and one of a single cell, embedded by PCA."""

import shutil
from pathlib import Path

import pandas as pd

from phenolens import pipeline
from phenolens.core.files import write_parquet
from phenolens.study import Study
from phenolens.training.config import TrainConfig

SERIES = "two/doses"  # a compound at 1 and at 10 µM; its name is no name of a folder
LONELY = "lonely"  # a compound of which one cell was found
RUN = "pca-seed0"


def travelling_study(cropped: Path, folder: Path) -> Study:
    """Two of the screen's compounds become one at two doses, and one treated cell a compound of its own."""
    study = Study.open(shutil.copytree(cropped, folder))
    first, second = sorted(study.crops.cells.query("role == 'treated'")["compound"].unique())[:2]
    for plate in study.crops.plates:
        path = study.crops_folder / f"{plate}.parquet"
        table = pd.read_parquet(path)
        dose = table["concentration_um"].mask(table["compound"] == first, 1).mask(table["compound"] == second, 10)
        table = table.assign(compound=table["compound"].replace([first, second], SERIES), concentration_um=dose)
        if plate == study.crops.plates[0]:
            table.loc[table.index[table["role"] == "treated"][-1], ["compound", "moa", "well"]] = LONELY, "", "H12"
        write_parquet(path, table, about={})
    config = TrainConfig(model="pca", network=dict(latent_size=12), threads=1, precision="float32")
    pipeline.train(study, config, name=RUN)
    pipeline.embed(study, RUN, pipeline.EmbedConfig(threads=1))
    return study


def explored_study(travelling, folder):
    """Embedded by PCA, profiled, and scored by NSC."""
    study = Study.open(shutil.copytree(travelling, folder))
    pipeline.profile(study, RUN, pipeline.ProfileConfig(min_cells=1))
    pipeline.evaluate(study, [RUN], pipeline.EvaluateConfig(protocols=("NSC",), bootstraps=20, shuffles=20))
    return study
