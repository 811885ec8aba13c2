"""The explorer on a study of a million cells: how long until something is seen, and what memory its server holds.

    python benchmarks/explorer.py                      # a million cells of 55 plates, 256 features
    python benchmarks/explorer.py --cells 200000       # a fifth; at least 110,000
    python benchmarks/explorer.py --study STUDY --run vaeplus-seed0    # a study of your own with 21 treatments

The study is made up: tables and embeddings are written in full, each treatment with a mean of its own; crops are files
of the right size without content (sparse), since a view reads only the few that it shows; the VAE is trained for one
step. Each round starts a server and a browser of its own. Timed are: from the start of the command to the line that
names the address; then in chromium, from the call of an address to the first frame on the screen that shows it: home,
and the map of cells with points (it draws 100,000 first) and with all of them. Then a travel is asked for: the first,
which opens the model; pages and frames of others that nobody asked for yet, ten of each; frames once more, brighter.
The memory is the server's peak (VmHWM), and what it holds itself at the end, without files that are mapped (RssAnon).
"""

import base64
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pandas as pd
import tyro
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from phenolens.core.files import write_h5ad, write_json, write_parquet
from phenolens.core.progress import tell, track
from phenolens.crops.config import FLAGS
from phenolens.crops.store import FORMAT, VERSION, npy_header
from phenolens.models.interface import latent_names
from phenolens.screens.screen import treatment_name
from phenolens.study import Study
from phenolens.training.embed import embedding_table
from phenolens.web.umap_map import MAP_CELLS

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
    study: Path | None = None  # looked at instead of the made-up one
    run: str = "vae-seed0"  # whose travels are asked for


def main(flags: Flags) -> None:
    """Make the study, look at it in every round, print the table."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        study = Study.create(Path(folder) / "study") if flags.study is None else Study.open(flags.study)
        if flags.study is None:
            make(study, flags)
        cells = study.crops.cells
        rounds = []
        for number in range(flags.rounds):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
            rounds.append(looked_at(study, browser, flags.run))
            browser.close()
            tell(f"round {number + 1}: " + ", ".join(f"{name} {value:.2f}" for name, value in rounds[-1].items()))
    print(f"\n{len(cells):,} cells, {cells['plate'].nunique()} plates; ", end="")
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
    about: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "complete": True,
        "channels": CHANNELS,
        "crop_px": CROP_PX,
    }
    about |= {"config": {"leave_out": ["noise"]}, "source": {"layout": "bbbc021"}, "left_out": {}, "plates": {}}
    treatments = []
    for plate, n in zip(plates, sizes.tolist()):
        table, treatment = cells_of(plate, n, random)
        treatments.append(treatment)
        write_parquet(study.crops_folder / f"{plate}.parquet", table, about={})
        with (study.crops_folder / f"{plate}.npy").open("wb") as file:
            header = npy_header((n, len(CHANNELS), CROP_PX, CROP_PX))
            file.write(header)
            file.truncate(len(header) + 2 * n * len(CHANNELS) * CROP_PX**2)
        n_noise = int(table["is_noise"].sum())
        counts = {"n_noise": n_noise, "n_flagged": dict.fromkeys(FLAGS, 0) | {"noise": n_noise}, "n_at_border": 0}
        about["plates"][plate] = {"n_crops": n, "npy_sha256": sha256(plate.encode()).hexdigest(), **counts}
    write_json(study.crops_folder / "about.json", about)
    train = [sys.executable, "-m", "phenolens.cli", "train", str(study.folder), "--model", "vae", "--steps", "1"]
    subprocess.run([*train, "--latent-size", str(flags.features)], check=True)
    said = {"crops": study.crops.identity, "config": {"steps": 1}, "made_from": "made up"}
    for plate, treatment in track(list(zip(plates, treatments)), "making embeddings", total=len(plates)):
        z = means[treatment] + 2 * random.standard_normal((len(treatment), flags.features), dtype=np.float32)
        cells = pd.read_parquet(study.crops_folder / f"{plate}.parquet")
        write_h5ad(
            study.embeddings_folder(RUN) / f"{plate}.h5ad",
            embedding_table(z, cells, features=latent_names(z.shape[1]), about=said, also={}),
        )


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


def looked_at(study: Study, browser: Browser, run: str) -> dict[str, float]:
    """One round: seconds of each view, and the server's peak memory in GiB."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "phenolens.cli", "explore", str(study.folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            lines = iter(server.stderr.readline, "")
            where = next(found[0] for line in lines if (found := re.search(r"http://\S+/", line)))
            took = {"command to address, s": time.perf_counter() - began}
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            film = Film(page)
            for name in ("home, first", "home, again"):
                at = time.time()
                page.goto(where)
                page.screenshot()
                took[f"{name}, s"] = time.time() - at
            for name in ("map of cells, first", "map of cells, again"):
                page.goto("about:blank")
                film.frames.clear()
                at = time.time()
                page.goto(f"{where}map?of=cells", wait_until="commit")
                page.wait_for_selector("#map[data-drawn]", timeout=120_000)
                page.screenshot()  # what was drawn is seen: a browser without a graphics card draws late
                points, everything = film.seen()
                took |= {f"{name}, points, s": points - at, f"{name}, all points, s": everything - at}
            shown = int(page.get_attribute("#map", "data-drawn") or 0)
            cells = study.crops.cells
            assert shown == min((~cells["is_noise"]).sum(), MAP_CELLS), shown
            page.close()
            took["server's peak memory, GiB"] = _gib(server.pid, "VmHWM")
            treated = cells[cells["role"] == "treated"]
            names = treatment_name(treated["compound"], treated["concentration_um"]).unique()
            took |= travelled(where, run, names[:21].tolist())
            took["server's peak memory with travels, GiB"] = _gib(server.pid, "VmHWM")
            took["of it without mapped files, at the end, GiB"] = _gib(server.pid, "RssAnon")
        finally:
            server.terminate()
    return took


def _gib(process: int, what: str) -> float:
    found = re.search(rf"{what}:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert found is not None
    return int(found[1]) / 2**20


def travelled(where: str, run: str, treatments: list[str]) -> dict[str, float]:
    """Travels to 21 treatments: the first, ten pages, ten frames; of ten the slowest."""
    travel, frame = f"{where}travel?run={run}&to=", f"{where}travel/frame-4.png?run={run}&to="
    first = _asked(f"{travel}{quote(treatments[0])}")
    pages, frames = treatments[1:11], treatments[11:]
    return {
        "first travel, s": first / 1000,
        "page of a new travel, ms": max(_asked(f"{travel}{quote(name)}") for name in pages),
        "frame of a new travel, ms": max(_asked(f"{frame}{quote(name)}") for name in frames),
        "frame again, ms": max(_asked(f"{frame}{quote(name)}&bright=150") for name in frames),
    }


def _asked(address: str) -> float:
    at = time.perf_counter()
    with urlopen(address) as answer:
        answer.read()
    return 1000 * (time.perf_counter() - at)


class Film:
    """What a person sees of a page, as chromium shows it: each frame with its time."""

    def __init__(self, page: Page) -> None:
        self.frames: list[tuple[float, str]] = []
        self._session = page.context.new_cdp_session(page)
        self._session.on("Page.screencastFrame", self._keep)
        self._session.send("Page.startScreencast", {"format": "png"})

    def seen(self) -> tuple[float, float]:
        """When points were seen first, and when as many as in the end: seconds since 1970."""
        coloured = [(when, _coloured(picture)) for when, picture in self.frames]
        most = coloured[-1][1]
        assert most > 0.01, "no points on the map"
        points = next(when for when, share in coloured if share > 0.01)
        return points, next(when for when, share in coloured if share > 0.98 * most)

    def _keep(self, frame: dict[str, Any]) -> None:
        self.frames.append((frame["metadata"]["timestamp"], frame["data"]))
        self._session.send("Page.screencastFrameAck", {"sessionId": frame["sessionId"]})


def _coloured(picture: str) -> float:
    """The share of the map's place on the page that is coloured."""
    pixels = np.asarray(Image.open(BytesIO(base64.b64decode(picture))).convert("RGB")).astype(int)[250:800, 80:950]
    return float((np.ptp(pixels, axis=2) > 60).mean())


if __name__ == "__main__":
    main(tyro.cli(Flags))
