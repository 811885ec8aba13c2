"""Look at a few fields of a screen before any work: their size, what is wrong with them, the nuclei in them.

Fields are taken evenly over the screen, and one is in memory at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from phenolens.errors import InputError
from phenolens.images.fields import full_scale, read_field
from phenolens.images.nuclei import NucleiConfig, label_nuclei
from phenolens.images.planes import open_plane
from phenolens.images.quality import TILE_PX, field_quality, quality_flags
from phenolens.progress import track
from phenolens.screen.table import Screen, where_of

MOST_NAMED = 4  # flagged fields that are named; more are counted


@dataclass(frozen=True)
class FieldWithNuclei:
    """A field's DNA channel (H, W) and the label image of the nuclei found in it (0 background, 1..n)."""

    name: str
    dna: npt.NDArray[np.uint16]
    labels: npt.NDArray[np.int32]

    @property
    def n_nuclei(self) -> int:
        """How many nuclei are found, those cut by the border too."""
        return int(self.labels.max(initial=0))


def sampled_fields(screen: Screen, n: int) -> pd.DataFrame:
    """The rows of at most `n` fields, evenly over the screen's table, the first and the last among them."""
    rows = np.linspace(0, len(screen.table) - 1, min(n, len(screen.table))).round().astype(int)
    return screen.table.iloc[np.unique(rows)]


def look_at_fields(screen: Screen, *, sample: int) -> tuple[str, str]:
    """Size, pixel type and full scale of `sample` fields in words; and the quality of each, in words.

    InputError for fields of two sizes or pixel types, and for a file that cannot be read.
    """
    fields = sampled_fields(screen, sample)
    kinds: dict[tuple[tuple[int, int], str], str] = {}
    bits: set[int] = set()
    brightest: list[int] = []
    rows: list[dict[str, float | bool]] = []

    def read() -> Iterator[npt.NDArray[np.uint16]]:
        for _, row in track(fields.iterrows(), "Fields looked at", total=len(fields)):
            paths = {channel: screen.folder / row[f"file_{channel}"] for channel in screen.channels}
            _headers(row, paths, kinds, bits)
            field = read_field(paths, where=where_of(row))
            brightest.append(int(field.max()))
            if min(field.shape[1:]) >= TILE_PX:
                rows.append(field_quality(field, channels=screen.channels))
            yield field

    scale = full_scale(read())
    if len(bits) == 1 and min(bits) < 16:
        scale = full_scale([np.array([max(brightest)], np.uint16)], bits=min(bits))
    (kind,) = kinds
    pictures = (
        f"{_kind(kind)}; full scale {scale:,}, the brightest pixel has {max(brightest):,} "
        f"(read: {len(fields)} of {len(screen.table):,} fields)"
    )
    return pictures, _quality(screen, fields, rows)


def field_of(screen: Screen, plate: str, well: str, site: int) -> pd.Series:
    """The row of one field; InputError, with what there is, for a field that the screen does not have."""
    rows = screen.table
    for what, name in (("plate", plate), ("well", well), ("site", site)):
        chosen = rows[rows[what].astype(str) == str(name)]
        if chosen.empty:
            there = sorted(map(str, rows[what].unique()))
            raise InputError(
                f'no field of plate "{plate}", well "{well}", site {site}: there is no {what} "{name}" (there are: '
                f"{', '.join(there[:12])}{', ...' if len(there) > 12 else ''}); correct --overlay-field"
            )
        rows = chosen
    return rows.iloc[0]


def found_nuclei(screen: Screen, field: pd.Series, *, config: NucleiConfig) -> FieldWithNuclei:
    """The nuclei found in a field's first channel, as `phenolens crop` finds them."""
    channel = screen.channels[0]
    name = where_of(field)
    dna = read_field({channel: screen.folder / field[f"file_{channel}"]}, where=name)[0]
    return FieldWithNuclei(f"{name}, channel {channel}".replace('"', ""), dna, label_nuclei(dna, config=config))


def count_nuclei(screen: Screen, *, sample: int, config: NucleiConfig) -> pd.DataFrame:
    """`sampled_fields` with `n_nuclei`, those cut by the border too; progress is told."""
    fields = sampled_fields(screen, sample)
    tracked = track(fields.iterrows(), "Fields searched for nuclei", total=len(fields))
    return fields.assign(n_nuclei=[found_nuclei(screen, row, config=config).n_nuclei for _, row in tracked])


def median_field(counted: pd.DataFrame) -> pd.Series:
    """The field with the median number of nuclei; of two in the middle the one with fewer, of equal ones the first."""
    order = counted.sort_values("n_nuclei", kind="stable")
    return order.iloc[(len(order) - 1) // 2]


def _headers(
    row: pd.Series, paths: dict[str, Path], kinds: dict[tuple[tuple[int, int], str], str], bits: set[int]
) -> None:
    """Note the size, pixel type and bits that a field's files state; InputError where they are not those before."""
    for channel, path in paths.items():
        named = f'{where_of(row)}: channel "{channel}"'
        with open_plane(path, named=named) as plane:
            kinds.setdefault((plane.shape, str(plane.pixel_type)), f"{named} ({path})")
            bits.add(plane.bits)
    if len(kinds) > 1:
        (a, where_a), (b, where_b) = list(kinds.items())[:2]
        raise InputError(
            f"{where_b} has {_kind(b)}, {where_a} has {_kind(a)}; all images must have one size and pixel type"
        )


def _kind(kind: tuple[tuple[int, int], str]) -> str:
    (height, width), pixel_type = kind
    return f"{height} x {width} px (height x width), {pixel_type}"


def _quality(screen: Screen, fields: pd.DataFrame, rows: list[dict[str, float | bool]]) -> str:
    """Which of the fields are flagged, and why."""
    if len(rows) < len(fields):
        return f"not judged: fields have less than {TILE_PX} px a side"
    flags = quality_flags(pd.DataFrame(rows), channels=screen.channels)
    flagged = [
        f"plate {field['plate']}, well {field['well']}, site {field['site']}: {why}"
        for (_, field), why in zip(fields.iterrows(), flags)
        if why
    ]
    more = [f"and {len(flagged) - MOST_NAMED} more"] if len(flagged) > MOST_NAMED else []
    said = "\n".join([*flagged[:MOST_NAMED], *more])
    count = f"{len(fields)} field{'' if len(fields) == 1 else 's'} looked at, {len(flagged) or 'none'} flagged"
    return f"{count}:\n{said}" if flagged else count
