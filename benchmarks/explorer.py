"""The explorer on a study of a million cells: how long until something is seen, and what memory its server holds.

    python benchmarks/explorer.py                      # a million cells of 55 plates, 256 features
    python benchmarks/explorer.py --cells 100000       # a tenth

The study is made up: tables and embeddings are written in full, each treatment with a mean of its own; crops are files
of the right size without content (sparse), since a view reads only the few that it shows. Each round starts a server of
its own. Timed are: from the start of the command to the line that names the address; then in chromium, each from the
call of an address to the end: home until its page is complete, the map of cells until all points are drawn (the first
look computes it, the second finds it computed), and its recolouring. The memory is the server's peak (VmHWM).
"""

import json
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import tyro
from playwright.sync_api import Browser, sync_playwright

from phenolens.files import write_h5ad, write_json, write_parquet
from phenolens.images.config import FLAGS
from phenolens.images.store import FORMAT, VERSION, npy_header
from phenolens.progress import tell, track
from phenolens.study import Study

RUN = "vae-seed0"
CHANNELS, CROP_PX = ("DNA", "tubulin", "actin"), 68
COMPOUNDS, DOSES, MECHANISMS = 38, 3, 12
WELLS = [f"{row}{column:02d}" for row in "BCDEFG" for column in range(2, 12)]
CHROMIUM = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]  # WebGL by the processor


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    cells: int = 1_000_000
    plates: int = 55
    features: int = 256
    rounds: int = 3
    seed: int = 0


def main(flags: Flags) -> None:
    """Make the study, look at it in every round, print the table."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        study = Study.create(Path(folder) / "study")
        make(study, flags)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        rounds = []
        for number in range(flags.rounds):
            rounds.append(looked_at(study, browser, flags.cells))
            tell(f"round {number + 1}: " + ", ".join(f"{name} {value:.2f}" for name, value in rounds[-1].items()))
        browser.close()
    print(f"\n{flags.cells:,} cells, {flags.plates} plates, {flags.features} features, seed {flags.seed}; ", end="")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}\n")
    print("| what | median | least | most |\n| --- | --- | --- | --- |")
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")


def make(study: Study, flags: Flags) -> None:
    """A study of made-up cells with embeddings."""
    random = np.random.default_rng(flags.seed)
    means = random.normal(size=(COMPOUNDS * DOSES + 1, flags.features)).astype(np.float32)
    sizes = np.full(flags.plates, flags.cells // flags.plates) + (np.arange(flags.plates) < flags.cells % flags.plates)
    plates = [f"Week{number // 6 + 1}_{number:05d}" for number in range(flags.plates)]
    about = {"format": FORMAT, "version": VERSION, "complete": True, "channels": CHANNELS, "crop_px": CROP_PX}
    about |= {"config": {"leave_out": ["noise"]}, "source": {"layout": "bbbc021"}, "left_out": {}, "plates": {}}
    treatments = []
    for plate, n in zip(plates, sizes.tolist()):
        table, treatment = cells_of(plate, n, random)
        treatments.append(treatment)
        write_parquet(study.crops / f"{plate}.parquet", table, about={})
        with (study.crops / f"{plate}.npy").open("wb") as file:
            header = npy_header((n, len(CHANNELS), CROP_PX, CROP_PX))
            file.write(header)
            file.truncate(len(header) + 2 * n * len(CHANNELS) * CROP_PX**2)
        counts = {"n_flagged": dict.fromkeys(FLAGS, 0) | {"noise": int(table["is_noise"].sum())}, "n_at_border": 0}
        about["plates"][plate] = {"n_crops": n, "n_noise": int(table["is_noise"].sum()), **counts}
    write_json(study.crops / "about.json", about)
    write_json(study.run(RUN) / "config.json", {"config": {"model": "vae", "seed": 0, "steps": 1}})
    write_json(study.run(RUN) / "health.json", {})
    said = {"phenolens": json.dumps({"crops": study.store().identity, "config": {"steps": 1}, "made_from": "made up"})}
    for plate, treatment in track(list(zip(plates, treatments)), "making embeddings", total=len(plates)):
        z = means[treatment] + 2 * random.standard_normal((len(treatment), flags.features), dtype=np.float32)
        write_h5ad(study.embeddings(RUN) / f"{plate}.h5ad", anndata.AnnData(X=z, uns=said))


def cells_of(plate: str, n: int, random: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    """A plate's table of cells, and the number of each cell's treatment (0: control)."""
    of_well = random.integers(1, COMPOUNDS * DOSES + 1, len(WELLS))
    of_well[:6] = 0
    well = np.sort(random.integers(0, len(WELLS), n))
    treatment = of_well[well]
    compound, dose = (treatment - 1) // DOSES, (treatment - 1) % DOSES
    control = treatment == 0
    names = np.array([f"compound-{number:02d}" for number in range(COMPOUNDS)])
    mechanisms = np.array([f"mechanism {number % MECHANISMS + 1}" for number in range(COMPOUNDS)])
    noise = random.random(n) < 0.03
    table = pd.DataFrame(
        {
            "cell_id": [f"{plate}_{WELLS[w]}_{i}" for i, w in enumerate(well.tolist())],
            "field": [f"{plate}_{WELLS[w]}_1" for w in well.tolist()],
            "object_number": np.arange(n),
            "y": random.uniform(34, 990, n),
            "x": random.uniform(34, 1246, n),
            "plate": plate,
            "well": np.array(WELLS)[well],
            "site": 1,
            "batch": plate.split("_")[0],
            "compound": np.where(control, "DMSO", names[compound]),
            "concentration_um": np.where(control, 0.0, np.array([0.1, 1.0, 10.0])[dose]),
            "moa": np.where(control, "", mechanisms[compound]),
            "role": np.where(control, "control", "treated"),
            "is_noise": noise,
            "flags": np.where(noise, "noise in DNA", ""),
        }
    )
    return table, treatment


def looked_at(study: Study, browser: Browser, n_cells: int) -> dict[str, float]:
    """One round: seconds of each view, and the server's peak memory in GiB."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "phenolens.cli", "explore", str(study.folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        lines = iter(server.stderr.readline, "")
        where = next(found[0] for line in lines if (found := re.search(r"http://\S+/", line)))
        took = {"command to address, s": time.perf_counter() - began}
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        drawn = "document.getElementById('map')?.dataset.drawn"
        for name, path, until in (
            ("home, first, s", "", "document.readyState == 'complete'"),
            ("home, again, s", "", "document.readyState == 'complete'"),
            ("map of cells, first, s", "map?of=cells", drawn),
            ("map of cells, again, s", "map?of=cells", drawn),
        ):
            at = time.perf_counter()
            page.goto(where + path, wait_until="commit")
            page.wait_for_function(until, timeout=120_000)
            took[name] = time.perf_counter() - at
        shown = int(page.evaluate(drawn))
        assert 0.9 * n_cells < shown < n_cells, shown  # all but the three in a hundred that are noise
        page.close()
        status = Path(f"/proc/{server.pid}/status").read_text()
        took["server's peak memory, GiB"] = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**20  # type: ignore[index]
        server.terminate()
        server.wait()
    return took


if __name__ == "__main__":
    main(tyro.cli(Flags))
