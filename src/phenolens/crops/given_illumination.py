"""Illumination functions that a source has, as `.npy` of each channel and plate, beside its images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phenolens.core.counted import counted
from phenolens.core.errors import InputError
from phenolens.core.files import sha256
from phenolens.crops.build import begin
from phenolens.crops.illumination import FloatArray, Illumination, load_illumination, save_illumination
from phenolens.crops.prepare_plate import ILLUMINATION_FOLDER
from phenolens.screens.image_files import ILLUMINATION
from phenolens.screens.image_states import part_name
from phenolens.screens.remote import local_copy
from phenolens.screens.screen import Screen


def check_given(screen: Screen, *, size: tuple[int, int]) -> None:
    """Check the source's own functions for fields of `size` (height, width).

    Raises InputError for a channel without a function, for one that is missing, of another size, not finite or not
    above 0, and for a plate with several.
    """
    for plate in _plates(screen):
        plate.check(size)


def given_illuminations(screen: Screen, folder: Path, *, size: tuple[int, int]) -> dict[str, Path]:
    """The illumination of each plate from the source's own functions: plate -> file of save_illumination.

    Raises InputError as `check_given`, before anything is written.
    """
    check_given(screen, size=size)
    begin(folder)
    written: dict[str, Path] = {}
    for plate in _plates(screen):
        path = folder / ILLUMINATION_FOLDER / f"{part_name(plate.name)}.npz"
        functions = np.stack([np.asarray(plate.function(channel), np.float32) for channel in plate.files])
        made_from = sha256(functions.tobytes())
        if not _is_kept(path, made_from):
            light = Illumination(functions, np.zeros(len(functions), np.float32), n_fields=0)
            save_illumination(path, light, about={"made_from": made_from})
        written[plate.name] = path
    return written


@dataclass(frozen=True)
class _Plate:
    """A plate and the file of each channel's function."""

    name: str
    files: dict[str, Path]

    def check(self, size: tuple[int, int]) -> None:
        """InputError for a function that cannot correct fields of this size."""
        for channel, file in self.files.items():
            function, named = self.function(channel), f"{self._named(channel)} ({file})"
            if function.shape != size:
                found = " x ".join(map(str, function.shape))
                raise InputError(f"{named} is {found} px, fields are {size[0]} x {size[1]} px; give one of their size")
            if function.dtype.kind != "f":
                raise InputError(f"{named} has values of type {function.dtype}, expected floating point; replace it")
            if not (np.isfinite(function).all() and function.min() > 0):
                raise InputError(f"{named} has values that are not finite and above 0; replace it")

    def function(self, channel: str) -> FloatArray:
        """The function (H, W) of a channel, mapped from its file."""
        named = self._named(channel)
        path = local_copy(self.files[channel], named=named)
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError as error:
            raise InputError(f"{named} is not there ({path}); add it, or correct its name in the table") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{named} is not a whole .npy file of numbers ({path}); replace it") from error

    def _named(self, channel: str) -> str:
        return f'plate "{self.name}": the illumination function of channel "{channel}"'


def _plates(screen: Screen) -> Iterator[_Plate]:
    without = [channel for channel in screen.channels if f"{ILLUMINATION}{channel}" not in screen.table]
    if without:
        raise InputError(
            f'--illumination given: the source has no illumination function of channel "{without[0]}"; use --layout '
            "jump with LoadData that names them, or estimate them with --illumination corrected"
        )
    for plate, rows in screen.table.groupby("plate", sort=False):
        files: dict[str, Path] = {}
        for channel in screen.channels:
            names = rows[f"{ILLUMINATION}{channel}"]
            if names.isna().any() or names.nunique() != 1:
                raise InputError(
                    f'plate "{plate}": {counted(names.nunique(), "illumination function")} of channel "{channel}", and '
                    f"{int(names.isna().sum()):,} of {counted(len(rows), 'field')} without one; "
                    "expected one of the plate"
                )
            files[channel] = screen.folder / names.iloc[0]
        yield _Plate(str(plate), files)


def _is_kept(path: Path, made_from: str) -> bool:
    try:
        return load_illumination(path)[1].get("made_from") == made_from
    except InputError:
        return False
