"""Measures of every cell of a study, stored in a table per plate; plates whose crops did not change are kept.

n cells of a plate, C channels, S x S px.
"""

from contextlib import closing
from pathlib import Path

import numpy as np

from phenolens import __version__
from phenolens.core.files import read_parquet_about, write_parquet
from phenolens.core.progress import track
from phenolens.core.workers import ONE, AtOnce, done_by_workers
from phenolens.crops.store import CropStore, normalised
from phenolens.study import Study

AT_ONCE = 256  # crops in memory


def measure_cells(study: Study, *, at_once: AtOnce = ONE) -> None:
    """Measure every cell of a study; `study.measures()` reads the result."""
    plates = study.crops.about["plates"]
    jobs = []
    for plate, of_plate in plates.items():
        path = study.measures_folder / f"{plate}.parquet"
        about = {"crops": of_plate["npy_sha256"], "phenolens": __version__}
        if not path.is_file() or read_parquet_about(path) != about:
            jobs.append((study.crops_folder, plate, path, about))
    with closing(done_by_workers(_measure_plate, jobs, at_once)) as done:
        for _ in track(done, "Plates whose cells were measured", total=len(jobs)):
            pass


def _measure_plate(job: tuple[Path, str, Path, dict[str, str]]) -> None:
    import pandas as pd

    from phenolens.morphology.features import measures  # slow to import

    folder, plate, path, about = job
    store = CropStore.open(folder)
    crops = store.crops(plate)
    starts = range(0, len(crops), AT_ONCE)
    parts = [
        measures(normalised(np.asarray(crops[at : at + AT_ONCE])), channels=store.channels)
        for at in track(starts, f"Cells of {plate} measured, in {AT_ONCE}s", total=len(starts))
    ]
    write_parquet(path, pd.concat(parts, ignore_index=True), about=about)
