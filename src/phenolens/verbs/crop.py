"""`phenolens crop`: from a screen's images to single-cell crops."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from phenolens import pipeline
from phenolens.core.progress import tell
from phenolens.core.workers import AtOnce
from phenolens.crops.config import FLAGS, CropConfig
from phenolens.crops.store import CropStore
from phenolens.screens.config import LayoutConfig
from phenolens.screens.layouts import LAYOUTS
from phenolens.study import Study

if TYPE_CHECKING:
    LayoutName = str
else:
    KINDS = "; ".join(f"{name}: {layout.title}" for name, layout in LAYOUTS.items())
    HELP = f"how the source lies on disk (docs/formats.md). {KINDS}"
    LayoutName = Annotated[Literal[tuple(LAYOUTS)], tyro.conf.arg(help=HELP)]


@dataclass(frozen=True)
class Flags:
    """Flags of `phenolens crop`."""

    study: Positional[Path]  # the study's folder, new, empty or with a study
    source: Path  # folder with the images and tables, or with the crop set
    layout: LayoutName
    reading: LayoutConfig = field(default_factory=LayoutConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    at_once: AtOnce = field(default_factory=AtOnce)


def act(flags: Flags) -> None:
    """Make the crops."""
    study, _ = cropped(flags)
    tell(f"next: phenolens train {shlex.quote(str(study.folder))}")


def cropped(flags: Flags) -> tuple[Study, CropStore]:
    """The study and its crops, made unless they exist."""
    pipeline.check_source(flags.source)
    with Study.begun(flags.study) as study:
        store = pipeline.crop(
            study,
            source=flags.source,
            layout=flags.layout,
            config=flags.crop,
            reading=flags.reading,
            at_once=flags.at_once,
        )
    tell(described(store))
    return study, store


def described(store: CropStore) -> str:
    """How many crops there are, and what was left out."""
    plates = store.about["plates"].values()
    at_border, out = (sum(plate[name] for plate in plates) for name in ("n_at_border", "n_noise"))
    missed = store.about["left_out"]
    flagged = {kind: sum(plate["n_flagged"][kind] for plate in plates) for kind in FLAGS}
    return (
        f"{len(store)} crops of {len(store.plates)} plates in {store.folder}; {at_border} cells at a border left out; "
        f"flagged: {', '.join(f'{n} {kind}' for kind, n in flagged.items())}; {out} of them are left out of "
        "training and profiles (--leave-out)" + "".join(f"; {n:,} {what} left out" for what, n in missed.items())
    )
