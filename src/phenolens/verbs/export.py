"""`phenolens export`: a study's crops as a file that scPortrait reads."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from phenolens.core.errors import InputError
from phenolens.core.progress import tell
from phenolens.study import Study


@dataclass(frozen=True)
class Flags:
    """Flags of `phenolens export`."""

    study: Positional[Path]  # the study's folder
    out: Path  # the file to write, named *.h5sc


def act(flags: Flags) -> None:
    """Write the file."""
    from phenolens.screens.scportrait import write_h5sc

    if flags.out.suffix != ".h5sc":
        raise InputError(f"--out {flags.out}: expected a name that ends in .h5sc")
    if not flags.out.parent.is_dir():
        raise InputError(f"--out {flags.out}: no such folder; make it first")
    if flags.out.exists():
        raise InputError(f"--out {flags.out}: exists; name a new file, or move that one away")
    store = Study.open(flags.study).crops
    write_h5sc(store, flags.out)
    tell(f"{len(store):,} crops in {flags.out} (float16: 11 bits a pixel)")
