"""`phenolens crop`: from a screen's images to single-cell crops."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from phenolens import steps
from phenolens.images.config import CropConfig
from phenolens.images.store import CropStore
from phenolens.progress import tell
from phenolens.study import Study

Layout = Literal["bbbc021", "cropset"]


@dataclass(frozen=True)
class Flags:
    """What `phenolens crop` takes."""

    study: Positional[Path]  # the study's folder; it is begun there when it is new or empty
    source: Path  # folder with the images and tables, or with the crop set
    layout: Layout  # how the source lies on disk: a BBBC021 download with Nuclei.csv, or the public crop set
    crop: CropConfig = field(default_factory=CropConfig)


def act(flags: Flags) -> None:
    """Cut or take over the crops."""
    steps.check_source(flags.source)
    study = Study.create(flags.study)
    tell(described(steps.crop(study, source=flags.source, layout=flags.layout, config=flags.crop)))
    tell(f"next: phenolens train {study.folder}")


def described(store: CropStore) -> str:
    """How many crops there are, and what was left out."""
    plates = store.about["plates"].values()
    at_border, noise = (sum(plate[name] for plate in plates) for name in ("n_at_border", "n_noise"))
    return (
        f"{len(store)} crops of {len(store.plates)} plates in {store.folder}; "
        f"{at_border} cells at a border left out, {noise} flagged as noise"
    )
