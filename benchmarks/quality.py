"""How well each defect of an image is found: planted in simulated fields, and on real crops checked by hand.

    python benchmarks/quality.py                                              # planted defects, and the speed
    python benchmarks/quality.py --crops CROPS.npz --verdicts tests/hand_checked_*.csv

Fields of untreated cells are drawn once and photographed in focus and with each defect, so that cells are the same.
AUC: how often a crop (or field) with the defect measures worse than one without. CROPS.npz holds `images`, uint16
(N, S, S, 3) in the order DNA, actin, tubulin; verdicts are tables of `crop` (row in the file, from 0), and
`has_empty_channel` or `is_out_of_focus` (yes or no).
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from scipy.stats import rankdata

from phenolens.core.progress import tell, track
from phenolens.crops.quality_control import crop_quality, field_quality, quality_flags
from phenolens.crops.source import cut, fits_inside
from phenolens.screens.bbbc021 import CHANNELS_ON_DISK
from phenolens.simulation.bodies import Light
from phenolens.simulation.microscope import PlateOptics, acquire, draw_cells, plate_optics
from phenolens.simulation.phenotypes import UNTREATED, sample_cells

CHANNELS = ("DNA", "tubulin", "actin")
CROP_PX, FIELD_PX = 68, 448
LIMIT = 65_520  # 12 bits times 16
DEFOCUS_PX, GAINS, BRIGHTER = (1.5, 2.0, 3.0, 4.0), (4.0, 8.0, 16.0), (2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    fields: int = 4  # simulated fields, each with about 60 cells
    seed: int = 2019  # of cells, noise and the places of spots
    rounds: int = 3  # how often the speed is measured
    crops: Path | None = None  # real crops, .npz; left out: planted defects alone
    verdicts: tuple[Path, ...] = ()  # the verdicts of a person on some of these crops, .csv


@dataclass(frozen=True)
class Scene:
    """A field before it is photographed."""

    light: Light
    y: np.ndarray  # centres of the cells, px
    x: np.ndarray
    optics: PlateOptics
    seed: int

    def field(self, *, light: Light | None = None, gain: float = 1, blur_px: float = 0) -> np.ndarray:
        """A photograph (3, H, W), with the same camera noise each time; blur before the camera, as in a microscope."""
        optics = replace(self.optics, gain=self.optics.gain * gain, blur_px=np.hypot(self.optics.blur_px, blur_px))
        return acquire(light or self.light, optics, np.random.default_rng(self.seed), noise=1)

    def crops(self, field: np.ndarray) -> np.ndarray:
        """The field's cells (n, 3, S, S), but for those at the border."""
        inside = fits_inside(self.y, self.x, field.shape[1:], CROP_PX)
        return cut(field, self.y[inside], self.x[inside], CROP_PX)


@dataclass(frozen=True)
class Found:
    """How well a defect was found."""

    defect: str
    of_what: str
    n_with: int
    n_without: int
    auc: float  # of the measure, whatever the threshold
    recall: float  # share flagged of those with the defect
    false_flags: float  # share flagged of those without


def main(flags: Flags) -> None:
    """Print the tables."""
    scenes = [scene(flags.seed + number) for number in track(range(flags.fields), "Fields drawn", total=flags.fields)]
    print(f"{flags.fields} simulated fields of {FIELD_PX} x {FIELD_PX} px, seed {flags.seed}\n")
    print("| planted | measured on | with, without | AUC | recall | false flags |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in [*found_in_crops(scenes), *found_in_fields(scenes)]:
        print(
            f"| {row.defect} | {row.of_what} | {row.n_with}, {row.n_without} | {row.auc:.3f} | {row.recall:.2f} | "
            f"{row.false_flags:.3f} |"
        )
    if flags.crops is not None:
        with np.load(flags.crops) as file:
            crops = np.ascontiguousarray(file["images"].transpose(0, 3, 1, 2))
        on_real_crops(crops, flags)


def scene(seed: int, *, field_px: int = FIELD_PX) -> Scene:
    """A field of untreated cells, at the density of a plate of BBBC021."""
    rng = np.random.default_rng(seed)
    size = {"height_px": field_px, "width_px": field_px}
    cells = sample_cells(rng, target=UNTREATED, strength=0, n_expected=field_px**2 / 3300, **size)
    light = draw_cells(cells, rng, seed=0, **size)
    optics = plate_optics(rng, rng, batch_effect=1, unevenness=0.25)
    inside = cells["y_px"].between(0, field_px - 1) & cells["x_px"].between(0, field_px - 1)
    return Scene(light, cells["y_px"][inside].to_numpy(), cells["x_px"][inside].to_numpy(), optics, seed)


def dark(light: Light, *channels: int) -> Light:
    """The same field with nothing in these channels."""
    sharp, soft = light.sharp.copy(), light.soft.copy()
    sharp[list(channels)] = soft[list(channels)] = 0
    return Light(sharp, soft)


def with_spots(crops: np.ndarray, *, brighter: float, seed: int) -> np.ndarray:
    """A round spot of 2 px standard deviation in one channel of each crop, anywhere in it.

    It is so many times `brighter` than the brightest 3 x 3 px of the channel's median crop.
    """
    rng = np.random.default_rng(seed)
    planted = crops.astype(np.float64)
    typical = [np.median(crop_quality(crops, channels=CHANNELS)[f"spot_height_{name}"]) for name in CHANNELS]
    rows = np.arange(crops.shape[-1])
    for crop in planted:
        channel, (y, x) = rng.integers(3), rng.uniform(4, crops.shape[-1] - 4, 2)
        spot = np.exp(-np.square(rows[:, None] - y) / 8) * np.exp(-np.square(rows - x) / 8)
        crop[channel] += brighter * typical[channel] * spot
    return (np.minimum(planted, LIMIT) // 16 * 16).astype(np.uint16)


def found_in_crops(scenes: list[Scene]) -> list[Found]:
    """Each defect in crops against the same crops without it."""

    def photographed(make: Callable[[Scene], np.ndarray]) -> np.ndarray:
        return np.concatenate([one.crops(make(one)) for one in scenes])

    clean = photographed(lambda one: one.field())
    rows = []
    for px in DEFOCUS_PX:
        crops = photographed(lambda one, px=px: one.field(blur_px=px))
        rows.append(_found(f"out of focus by {px:g} px", "focus", clean, crops, of="focus", flag="out_of_focus"))
    for gain in GAINS:
        crops = photographed(lambda one, gain=gain: one.field(gain=gain))
        rows.append(_found(f"gain x {gain:g}", "saturated share", clean, crops, of="saturated_share", flag="saturated"))
    for c, name in enumerate(CHANNELS):
        crops = photographed(lambda one, c=c: one.field(light=dark(one.light, c)))
        rows.append(
            _found(f"no {name}", "neighbour correlation", clean, crops, of="neighbour_correlation", flag="noise")
        )
    for brighter in BRIGHTER:
        crops = with_spots(clean, brighter=brighter, seed=scenes[0].seed)
        rows.append(
            _found(f"spot x {brighter:g}", "spot contrast", clean, crops, of="spot_contrast", flag="bright_spot")
        )
    return rows


def found_in_fields(scenes: list[Scene]) -> list[Found]:
    """Empty and blurred fields against the same fields as they should be."""
    clean = [one.field() for one in scenes]
    empty = [one.field(light=dark(one.light, 0, 1, 2)) for one in scenes]
    blurred = [one.field(blur_px=3) for one in scenes]
    rows = []
    for defect, of_what, fields, measure, flag in (
        ("empty field", "picture share", empty, "picture_share", "empty"),
        ("field out of focus by 3 px", "focus", blurred, "focus", "out_of_focus"),
    ):
        tables = [
            pd.DataFrame([field_quality(field, channels=CHANNELS) for field in group]) for group in (clean, fields)
        ]
        rows.append(_compared(defect, of_what, *tables, measure=measure, flag=flag))
    return rows


def _found(defect: str, of_what: str, clean: np.ndarray, crops: np.ndarray, *, of: str, flag: str) -> Found:
    """The defect's crops are judged among the clean ones, as they would be on a plate where few have it."""
    table = crop_quality(np.concatenate([clean, crops]), channels=CHANNELS)
    without, with_defect = table[: len(clean)], table[len(clean) :]
    return _compared(defect, of_what, without, with_defect, measure=of, flag=flag)


def _compared(
    defect: str, of_what: str, clean: pd.DataFrame, with_defect: pd.DataFrame, *, measure: str, flag: str
) -> Found:
    is_bad = [_any(table, flag) for table in (clean, with_defect)]
    worse = [_worst(table, measure) for table in (clean, with_defect)]
    recall, false_flags = float(is_bad[1].mean()), float(is_bad[0].mean())
    return Found(defect, of_what, len(with_defect), len(clean), auc(*worse), recall, false_flags)


def _any(table: pd.DataFrame, flag: str) -> np.ndarray:
    names = [flag] if flag in table else [f"{flag}_{channel}" for channel in CHANNELS]
    return table[names].to_numpy(bool).any(axis=1)


def _worst(table: pd.DataFrame, measure: str) -> np.ndarray:
    """The measure of a crop's worst channel, larger is worse."""
    names = [measure] if measure in table else [f"{measure}_{channel}" for channel in CHANNELS]
    values = table[names].to_numpy(float)
    if measure == "picture_share":
        return -values.max(axis=1)  # a field is empty when every channel is
    low_is_bad = measure in ("focus", "neighbour_correlation")
    return -values.min(axis=1) if low_is_bad else values.max(axis=1)


def auc(without: np.ndarray, with_defect: np.ndarray) -> float:
    """Area under the ROC curve: how often a measure with the defect is above one without, ties count half."""
    ranks = rankdata(np.concatenate([without, with_defect]))[len(without) :]
    n = len(with_defect)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * len(without)))


def wilson(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    z = 1.959964
    centre = (right + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * math.sqrt(right * (n - right) / n + z**2 / 4)
    return centre - half, centre + half


def on_real_crops(crops: np.ndarray, flags: Flags) -> None:
    """How many real crops are flagged and for what, how right flags are, and how fast it goes."""
    speeds = []
    for turn in range(flags.rounds):
        began = time.perf_counter()
        table = crop_quality(crops, channels=CHANNELS_ON_DISK)
        speeds.append(len(crops) / (time.perf_counter() - began))
        tell(f"turn {turn + 1}: {speeds[-1]:,.0f} crops per second")
    words = quality_flags(table, channels=CHANNELS_ON_DISK)
    print(f"\n{len(crops):,} real crops, {int((words != '').sum())} flagged\n")
    print("| flag | crops |")
    print("| --- | --- |")
    for reason, count in words[words != ""].value_counts().items():
        print(f"| {reason} | {count} |")
    for path in flags.verdicts:
        verdicts = pd.read_csv(path, comment="#")
        agreed = agreement(table, verdicts)
        print(f"\n`{verdicts.columns[1]}` by the flag against a person's verdict on {len(verdicts)} crops:\n")
        print("| measure | value | 95 % interval |")
        print("| --- | --- | --- |")
        for name, (right, of) in agreed.items():
            low, high = wilson(right, of)
            print(f"| {name} | {right} of {of} | {low:.3f} to {high:.3f} |")
    least, most = min(speeds), max(speeds)
    print(f"\nCrops a second, one thread: {statistics.median(speeds):,.0f} ({least:,.0f} to {most:,.0f})")


def agreement(table: pd.DataFrame, verdicts: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Precision and recall, among the crops that a person judged, of the flag of their defect: (right, of how many)."""
    defect = verdicts.columns[1]
    names = {
        "has_empty_channel": [f"noise_{channel}" for channel in CHANNELS_ON_DISK],
        "is_out_of_focus": ["out_of_focus"],
    }
    flagged = table[names[defect]].to_numpy(bool).any(axis=1)[verdicts["crop"]]
    has_defect = (verdicts[defect] == "yes").to_numpy()
    both = int((flagged & has_defect).sum())
    return {"precision": (both, int(flagged.sum())), "recall": (both, int(has_defect.sum()))}


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__.splitlines()[0]))
