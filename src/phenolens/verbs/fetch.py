"""`phenolens fetch bbbc021 OUT --plates A B ...`: a public screen from its official server.

The folder may also stand last: `phenolens fetch bbbc021 --plates A B OUT`.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.screens.bbbc021 import PLATE
from phenolens.screens.download import FetchConfig, fetch_bbbc021


@dataclass(frozen=True)
class Flags:
    """What `phenolens fetch` takes."""

    dataset: Positional[Literal["bbbc021"]]  # which screen
    out: Positional[Path | None] = None  # folder to download into; the same command resumes there
    fetch: FetchConfig = field(default_factory=FetchConfig)


def act(flags: Flags) -> None:
    """Download and unpack."""
    out, config = with_folder(flags.out, flags.fetch)
    folders = fetch_bbbc021(out, config)
    tell(f"{len(folders)} plates and the tables are in {out}")
    named = f" --plates {' '.join(folders)}" if config.plates else ""
    tell(f"next (cells are found where no Nuclei.csv of CellProfiler lies in {out}):")
    tell(f"phenolens crop STUDY --source {out} --layout bbbc021{named}")


def with_folder(out: Path | None, config: FetchConfig) -> tuple[Path, FetchConfig]:
    """The folder, also when it stands last after --plates; InputError when there is none."""
    if out is not None:
        return out, config
    *plates, last = config.plates or ("",)
    if not last or PLATE.match(last):  # a plate's name is never taken for the folder
        raise InputError("no folder to download into: phenolens fetch bbbc021 OUT --plates Week1_22123 ...")
    return Path(last), replace(config, plates=tuple(plates))
