"""Commands from images to crops: simulate, fetch, check, crop, export."""

import math
import os
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import pandas as pd
import tyro
from tyro.conf import Positional

from phenolens import pipeline
from phenolens.commands.paths import AnyPath
from phenolens.core.bounds import Bounded, Count, Positive
from phenolens.core.counted import counted, left_out_line
from phenolens.core.errors import InputError
from phenolens.core.files import write_whole
from phenolens.core.keywords import flags_of, keyword_settings
from phenolens.core.progress import tell
from phenolens.core.workers import AtOnce, check_scheduler
from phenolens.crops.config import FLAGS, CropConfig, NucleiConfig, suggested_crop_px
from phenolens.crops.grey_values import SAMPLE
from phenolens.crops.store import CropStore
from phenolens.profiles.activity import weak_designs
from phenolens.profiles.candidates import NAMED
from phenolens.profiles.evaluate import EvaluateConfig
from phenolens.profiles.kinds import few_controls
from phenolens.screens.bbbc021 import PLATE
from phenolens.screens.config import LayoutConfig
from phenolens.screens.download import FetchConfig, fetch_bbbc021
from phenolens.screens.guess_layout import Guess, guess_layout
from phenolens.screens.jump import ILLUMINATION
from phenolens.screens.layouts import LAYOUTS
from phenolens.screens.plate_map import write_template
from phenolens.screens.remote import errors_by_address, local_source, shown
from phenolens.screens.screen import Treatments
from phenolens.simulation.screen_design import SimulateConfig
from phenolens.study import Study

FIRST_NUCLEUS_PX = 30  # a usual nucleus of 15 um at 20 times; the diameter that `check` begins with

if TYPE_CHECKING:
    from phenolens.crops.check import Checked

    LayoutName = str
else:
    KINDS = "; ".join(f"{name}: {layout.title}" for name, layout in LAYOUTS.items())
    HELP = f"File layout of the source (docs/formats.md). {KINDS}"
    LayoutName = Annotated[Literal[tuple(LAYOUTS)], tyro.conf.arg(help=HELP)]


@keyword_settings
def simulate(
    out: Positional[AnyPath], *, processes: Count | None = None, screen: SimulateConfig = SimulateConfig()
) -> Path:
    """Write a simulated screen, laid out as a BBBC021 download, with its true answers.

    Args:
        out: Folder to write the screen into; new or empty.
        processes: Fields drawn in parallel; default: one per core.
        screen: The design of the screen: `seed=1, mechanisms=4`.

    Returns:
        The folder. Its `truth.parquet` holds the true parameters of every cell.

    Raises:
        InputError: A setting is out of range, or the folder holds something else.
    """
    from phenolens.simulation.simulate import simulate as simulate_screen

    folder = Path(out)
    simulate_screen(folder, screen, processes=processes or os.cpu_count() or 1)
    return folder


@keyword_settings
def fetch(
    dataset: Positional[Literal["bbbc021"]],
    out: Positional[AnyPath | None] = None,
    *,
    download: FetchConfig = FetchConfig(),
) -> Path:
    """Download BBBC021 from its official server: tables, labels and the plates you name.

    Args:
        dataset: Which screen.
        out: Folder to download into; interrupted downloads resume.
        download: Which plates to download, and how: `plates=["Week1_22123"]`.

    Returns:
        The folder.

    Raises:
        InputError: There is no such plate, or the server cannot be reached.
    """
    folder, download = _download_folder(out, download)
    plates = fetch_bbbc021(folder, download)
    tell(f"{counted(len(plates), 'plate')} and the tables are in {folder}")
    return folder


def _download_folder(out: AnyPath | None, config: FetchConfig) -> tuple[Path, FetchConfig]:
    """The folder, also when it comes last after `--plates`."""
    if out is not None:
        return Path(out), config
    *plates, last = config.plates or ("",)
    if not last or PLATE.match(last):  # a plate's name is never the folder
        raise InputError("no folder to download into: phenolens fetch bbbc021 OUT --plates Week1_22123 ...")
    return Path(last), replace(config, plates=tuple(plates))


@dataclass(frozen=True)
class CheckConfig(Bounded):
    """What is checked in a source, and how nuclei are found."""

    treatments: Treatments = "all"  # controls and treatments of known mechanism only, or all
    plates: tuple[str, ...] = ()  # plates to check; all when none is named
    skip_missing: bool = False  # count fields without an image or a label instead of stopping at the first
    sample: Count = SAMPLE  # fields whose pixels are checked for size, type and quality, and in which nuclei are found
    template: Path | None = None  # CSV to write: a plate map of the wells that are found, to fill in
    overlay: Path | None = None  # PNG to write: one field with its nuclei outlined; nothing else is written
    overlay_field: tuple[str, str, int] | None = None  # plate, well, site; default: the sampled field of median light
    # how nuclei are found: by the built-in method, or by Cellpose (an extra)
    cells: Literal["auto", "found", "cellpose"] = "auto"
    pixel_size_um: Positive | None = CropConfig.pixel_size_um  # side of a pixel in the specimen, micrometres
    nucleus_um: Positive = CropConfig.nucleus_um  # typical diameter of a nucleus, micrometres
    nucleus_px: Positive | None = CropConfig.nucleus_px  # the same in pixels; replaces the two above
    least_contrast: Positive = CropConfig.least_contrast  # minimum brightness of a nucleus, deviations of pixel noise

    @property
    def nucleus_settings(self) -> dict[str, float]:
        """The settings of nuclei, which CropConfig has too, that are not the defaults."""
        names = ("pixel_size_um", "nucleus_um", "nucleus_px", "least_contrast")
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(CropConfig, name)}

    @property
    def finds_nuclei(self) -> bool:
        """Whether nuclei are searched: for a picture of them, or because their settings are given."""
        return self.overlay is not None or bool(self.nucleus_settings) or self.cells != "auto"

    def nuclei(self, layout: LayoutName) -> NucleiConfig:
        """How nuclei are found, as `phenolens crop` would; InputError where their size is not known."""
        pixel_um = LAYOUTS[layout].pixel_um
        return CropConfig(cells=self.cells, **self.nucleus_settings).nuclei(usual_pixel_um=pixel_um)  # type: ignore[arg-type]


@keyword_settings
@errors_by_address()
def check(
    source: Positional[AnyPath],
    *,
    layout: LayoutName | None = None,
    reading: LayoutConfig = LayoutConfig(),
    parallel: AtOnce = AtOnce(),
    checking: CheckConfig = CheckConfig(),
) -> pd.DataFrame:
    """Report what a source holds, how good its fields are and what is missing.

    Args:
        source: Folder with the images and tables, or with the crop set.
        layout: File layout of the source; docs/formats.md describes each. Left out, it is guessed.
        reading: Table, plate map, channels, controls and centres of the source.
        parallel: How many processes, or which Dask cluster, read the headers of the images.
        checking: What is checked; with `overlay="nuclei.png"` the nuclei of one field are outlined.

    Returns:
        A row per finding: `what`, `found`, and `missing`, whether something is missing. `attrs["next"]` is the command
        that comes next, `attrs["remark"]` what to know before.

    Raises:
        InputError: The source cannot be used.
    """
    from phenolens.crops.check import check_source

    check_scheduler(parallel)
    folder, reading = local_source(Path(source), reading)
    guess = guess_layout(folder, reading) if layout is None else Guess(layout, reading)
    layout, reading = guess.layout, guess.config
    _check_files(folder, layout, checking)
    try:
        checked = check_source(
            parallel.path(folder),
            layout=layout,
            config=reading,
            treatments=checking.treatments,
            plates=checking.plates,
            skip_missing=checking.skip_missing,
            sample=checking.sample,
            at_once=parallel,
        )
    except InputError as error:
        if not guess.why:
            raise
        raise InputError(f"{str(error).removesuffix('.')}; read with {guess}") from error
    nuclei, found_px = _nuclei(checked, layout, checking) if checking.finds_nuclei else ([], math.nan)
    if checking.template is not None:
        write_template(checked.screen, checking.template, has_treatments=checked.has_treatments)
        to_fill = "a row per well, to fill in (0 where there is no concentration) and give as --plate-map"
        nuclei.append(("template", f"{checking.template}: {to_fill}"))
    guessed = [("guessed", str(guess))] if guess.why else []
    possible, impossible = _scores(checked) if checked.has_treatments else ([], [])
    found = [(*row, False) for row in (*guessed, *checked.there, *possible, *nuclei)]
    found += [(*row, True) for row in (*checked.missing, *impossible)]
    table = pd.DataFrame(found, columns=["what", "found", "missing"])
    table.attrs["next"], table.attrs["remark"] = _next_command(
        folder, layout, reading, checking, checked, scored=bool(possible), found_px=found_px
    )
    return table


def _scores(checked: "Checked") -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Which scores the plate map allows, and which it does not, with the reason."""
    fields = checked.screen.table
    if not (fields["role"] == "treated").any():  # which is among what is missing
        return [], []
    try:
        absent = pipeline.check_design(fields, EvaluateConfig(), where=checked.screen.folder)
    except InputError as error:
        return [], [("scores", str(error))]
    possible = ["activity against the controls", *(name for name in NAMED if name not in absent)]
    weak = weak_designs(fields)
    few = few_controls(fields)
    limits = [*([("activity", weak)] if weak else []), *([("scaling", few)] if few else [])]
    return [("scores", ", ".join(possible)), *limits], [*absent.items()]


def _check_files(source: Path, layout: LayoutName, config: CheckConfig) -> None:
    """InputError on settings that do not go together, before anything is read."""
    overlay = config.overlay
    if config.template is not None:
        _check_new_file("template", config.template, ".csv", source)
        if config.template.exists():
            raise InputError(f"--template {config.template}: already exists; name a new file")
    if overlay is None and config.overlay_field is not None:
        raise InputError("--overlay-field: requires --overlay FILE.png, the picture of that field")
    if config.finds_nuclei and not LAYOUTS[layout].has_fields:
        raise InputError(
            f"--layout {layout} has no fields to find nuclei in; leave out --overlay and the size of nuclei"
        )
    if config.finds_nuclei:
        config.nuclei(layout)
    if overlay is None:
        return
    _check_new_file("overlay", overlay, ".png", source)


def _check_new_file(flag: str, path: Path, ending: str, source: Path) -> None:
    """InputError unless `path` names a file with that ending in a folder outside the source."""
    if path.suffix.lower() != ending:
        raise InputError(f"--{flag} {path}: expected a file name that ends in {ending}")
    if not path.parent.is_dir() or path.is_dir():
        found = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise InputError(f"--{flag} {path}: {found}; name a file in an existing folder")
    if path.resolve().is_relative_to(source.resolve()):
        raise InputError(f"--{flag} {path}: is inside the source, which is never written to; name a file elsewhere")


def _nuclei(checked: "Checked", layout: LayoutName, checking: CheckConfig) -> tuple[list[tuple[str, str]], float]:
    """How many nuclei are found in the sample, and their median diameter in pixels (NaN where none is whole).

    The picture of one field is written where it is asked for.
    """
    from phenolens.crops.check import count_nuclei, field_of, found_nuclei, median_field
    from phenolens.crops.nuclei import size_note

    config, screen = checking.nuclei(layout), checked.screen
    shown = None if checking.overlay_field is None else field_of(screen, *checking.overlay_field)
    nuclei = count_nuclei(screen, sample=checking.sample, config=config)
    n = nuclei["n_nuclei"]
    by = " by Cellpose" if config.by == "cellpose" else ""
    found_in = f"channel {screen.channels[0]} of {counted(len(n), 'field')}"
    count = f"{n.sum():,} found{by} in {found_in}, {n.min()} to {n.max()} per field (median {n.median():g})"
    diameters = [diameter for of_field in nuclei["diameters_px"] for diameter in of_field]
    found_px = float(np.median(diameters)) if diameters else math.nan
    of = f"; median diameter {found_px:.3g} px, searched as {config.diameter_px:.3g} px" if diameters else ""
    rows = [("nuclei", count + of)]
    if off := size_note(found_px, config):
        rows.append(("note", off))
    if checking.overlay is not None:
        from phenolens.plotting.quality_figures import nuclei_overlay
        from phenolens.plotting.style import png

        found = found_nuclei(screen, median_field(nuclei) if shown is None else shown, config=config)
        picture = png(nuclei_overlay(found.dna, found.labels, name=found.name))
        with write_whole(checking.overlay) as file:
            file.write(picture)
        rows.append(("overlay", f"{found.name}: {found.n_nuclei} nuclei outlined in {checking.overlay}"))
    return rows, found_px


def _next_command(
    source: Path,
    layout: LayoutName,
    reading: LayoutConfig,
    checking: CheckConfig,
    checked: "Checked",
    *,
    scored: bool,
    found_px: float,
) -> tuple[str, str]:
    """The command that comes next, to paste, and a remark on it; only settings that are not the defaults are in it.

    `found_px` is the median diameter of the nuclei found, NaN where it is not known.
    """
    from phenolens.crops.nuclei import size_note

    command = ["phenolens", "run", "STUDY", "--source", shown(source), "--layout", layout]
    settings = {name: shown(value) if isinstance(value, Path) else value for name, value in asdict(reading).items()}
    command += flags_of(settings, asdict(LayoutConfig()))
    command += ["--plates", *checking.plates] if checking.plates else []
    again = ["phenolens", "check", *command[4:]]
    if not checked.has_treatments:
        if checking.template is None:
            return shlex.join([*again, "--template", "PLATE_MAP.csv"]), "the next command writes a plate map to fill in"
        return shlex.join([*again, "--plate-map", str(checking.template)]), f"fill in {checking.template} first"
    if not scored:
        return shlex.join(again), "first add control wells and treated wells, at least one of each"
    if checking.skip_missing:
        command.append("--skip-missing")
        again.append("--skip-missing")
    if any(name.startswith(ILLUMINATION) for name in map(str, checked.screen.table)):
        command += ["--illumination", "given"]
    cells = flags_of({"cells": checking.cells}, asdict(CheckConfig()))
    command += cells
    if checked.has_cells and checking.cells == "auto":
        return shlex.join(command), ""
    contrast = flags_of({"least_contrast": checking.least_contrast}, asdict(CheckConfig()))
    is_known = LAYOUTS[layout].pixel_um is not None or checking.finds_nuclei
    is_off = checking.finds_nuclei and size_note(found_px, checking.nuclei(layout)) is not None
    if is_off or not is_known:
        size = f"{found_px:.0f}" if is_off else f"{FIRST_NUCLEUS_PX}"
        guess = "" if is_off else f"nuclei of {size} px are a guess, the next command measures them; "
        again += [*cells, "--nucleus-px", size, *contrast, "--overlay", str(checking.overlay or "nuclei.png")]
        return shlex.join(again), f"{guess}look at their outlines in the picture before cells are cropped"
    if math.isnan(found_px):
        for name, number in checking.nucleus_settings.items():
            command += [f"--{name.replace('_', '-')}", f"{number:g}"]
    else:
        command += ["--nucleus-px", f"{found_px:.0f}", *contrast]
        if LAYOUTS[layout].pixel_um is None:  # else the default is the side that this source was published with
            command += ["--crop-px", f"{suggested_crop_px(found_px)}"]
    channels = checked.screen.channels
    named = "; name channels with --channels, such as DNA=1" if all(map(str.isdigit, channels)) else ""
    return shlex.join(command), f"cells will be found in the first channel, {channels[0]}{named}"


@keyword_settings
@errors_by_address()
def crop(
    study: Positional[AnyPath],
    *,
    source: AnyPath,
    layout: LayoutName | None = None,
    reading: LayoutConfig = LayoutConfig(),
    cropping: CropConfig = CropConfig(),
    parallel: AtOnce = AtOnce(),
) -> Study:
    """Cut single-cell crops from fields of view, or read those of a crop set.

    Args:
        study: The study's folder; it is created when it is new or empty.
        source: Folder with the images and tables, or with the crop set.
        layout: File layout of the source (docs/formats.md): a BBBC021 download, the public crop set, ... Left out,
            it is guessed from the names of the files.
        reading: Table, plate map, channels, controls and centres of the source.
        cropping: Which crops are cut, and how: `crop_px=68, cells="found"`.
        parallel: How many processes work at once; the crops are the same.

    Returns:
        The study with its crops. Crops that are already there and made from the same are kept.

    Raises:
        InputError: The source cannot be used, or the folder holds something else; nothing is half-written.
    """
    check_scheduler(parallel)
    folder, layout, reading = known_layout(Path(source), layout, reading)
    folder = parallel.path(folder)
    with Study.begun(parallel.path(study)) as begun:
        store = pipeline.crop(begun, source=folder, layout=layout, config=cropping, reading=reading, at_once=parallel)
    tell(crops_summary(store))
    return begun


def known_layout(
    source: Path, layout: LayoutName | None, reading: LayoutConfig
) -> tuple[Path, LayoutName, LayoutConfig]:
    """The source's folder on this machine, its layout (guessed and said where it is not given) and its reading.

    InputError without a source.
    """
    folder, reading = local_source(source, reading)
    pipeline.check_source(folder)
    if layout is not None:
        return folder, layout, reading
    guess = guess_layout(folder, reading)
    if guess.why:
        tell(str(guess))
    return folder, guess.layout, guess.config


def crops_summary(store: CropStore) -> str:
    """How many crops there are, how many are flagged, and what was left out."""
    plates = store.about["plates"].values()
    at_border, out = (sum(plate[name] for plate in plates) for name in ("n_at_border", "n_noise"))
    flagged = {kind: sum(plate["n_flagged"][kind] for plate in plates) for kind in FLAGS}
    return (
        f"{counted(len(store), 'crop')} of {counted(len(store.plates), 'plate')} in {store.folder}; "
        f"{counted(at_border, 'cell')} at a border left out; "
        f"flagged: {', '.join(f'{n} {kind}' for kind, n in flagged.items())}; {out} of them are left out of training "
        "and profiles (--leave-out)"
        + "".join(f"; {left_out_line(what, n)}" for what, n in store.about["left_out"].items())
    )


@keyword_settings
def export(study: Positional[AnyPath], *, out: AnyPath) -> Path:
    """Write a study's crops as a file that scPortrait reads.

    Args:
        study: The study, or its folder.
        out: The file to write, with the ending .h5sc.

    Returns:
        The file.

    Raises:
        InputError: The name has another ending, or there is such a file already.
    """
    from phenolens.screens.scportrait import write_h5sc

    path = Path(out)
    if path.suffix != ".h5sc":
        raise InputError(f"--out {path}: expected a name that ends in .h5sc")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: no such folder; create it first")
    if path.exists():
        raise InputError(f"--out {path}: already exists; name a new file, or move the existing one")
    store = Study.open(study).crops
    write_h5sc(store, path)
    tell(f"{counted(len(store), 'crop')} in {path} (float16: 11 bits per pixel)")
    return path
