"""Read a screen from the names of its files, such as `{plate}/{well}_s{site}_w{channel}.tif`, and a plate map."""

import os
import re
from collections import Counter
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.progress import track
from phenolens.screens.config import LayoutConfig, chosen_channels
from phenolens.screens.plate_map import with_treatments
from phenolens.screens.screen import FIELD, Screen, well_name, where_of

# A channel has no underscore, which excludes `w1_thumb`. ImageXpress puts an identifier (guid) at the end.
PLACES = {
    "plate": r"[^/]+?",
    "well": r"[A-Za-z]{1,2}\d{1,3}",
    "site": r"\d+",
    "channel": r"[^/_]+?",
    "guid": r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
}
THUMBNAIL = re.compile(r"_thumb", re.IGNORECASE)


def read_pattern(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of the files under `source` whose path, or its end, has the pattern; treatments from the plate map.

    Without `{site}` each well has site 1; without `{plate}` the plate is the source folder's name. Files that do not
    match are counted in `left_out` (but CSV), thumbnails (`_thumb`) separately. Files are not yet searched (see
    with_files). Raises InputError for a pattern without `{well}` or `{channel}`, when no file matches, for two files
    of one plate, well, site and channel, for a site without a file of each channel (with `skip_missing` left out and
    counted) and as the plate map does.
    """
    source = Path(source)
    expression = pattern_expression(config.pattern)
    rows, left_out = _matching(source, expression, pattern=config.pattern)
    table = pd.DataFrame(rows)
    key = [*FIELD, "channel"]
    twice = table.duplicated(key)
    if twice.any():
        again = table[twice].iloc[0]
        first = table[(table[key] == again[key]).all(axis=1)].iloc[0]
        raise InputError(
            f'{where_of(again)}: channel "{again["channel"]}" has two files, {first["path"]} and {again["path"]} '
            f"({int(twice.sum())} such files); make the pattern narrower"
        )
    channels = chosen_channels(sorted(table["channel"].unique()), config.channels, source=str(source))
    wide = table.pivot(index=FIELD, columns="channel", values="path")[list(channels.values())]
    fields = wide.set_axis([f"file_{channel}" for channel in channels], axis=1).reset_index()
    return with_treatments(
        fields, list(channels), source=source, config=config, skip_missing=skip_missing, left_out=left_out
    )


def pattern_expression(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression over a path with forward slashes; `*` is anything but a slash.

    Raises InputError for a pattern without `{well}` or `{channel}`, and for a place that is not known or named twice.
    """
    parts = re.split(r"(\{[^}]*\}|\*)", pattern.strip().lstrip("/"))
    names = [part[1:-1] for part in parts if part.startswith("{")]
    strange = [name for name in names if name not in PLACES or names.count(name) > 1]
    lacking = [name for name in ("well", "channel") if name not in names]
    if strange or lacking:
        found = f"{{{strange[0]}}} is not known or occurs twice" if strange else f"it has no {{{lacking[0]}}}"
        raise InputError(
            f'--pattern "{pattern}": {found}; expected such as {{plate}}/{{well}}_s{{site}}_w{{channel}}.tif, '
            "with * for what changes and {guid} for an identifier"
        )
    written = "".join(
        f"(?P<{part[1:-1]}>{PLACES[part[1:-1]]})"
        if part.startswith("{")
        else "[^/]*?"
        if part == "*"
        else re.escape(part)
        for part in parts
    )
    return re.compile(rf"(?:.*/)?{written}")


def _matching(
    source: Path, expression: re.Pattern[str], *, pattern: str
) -> tuple[list[dict[str, str | int]], dict[str, int]]:
    rows: list[dict[str, str | int]] = []
    counts: Counter[str] = Counter()
    other = ""
    files = _files(source)
    for path in track(files, "Names of files read", total=len(files)):
        if THUMBNAIL.search(path.rsplit("/", 1)[-1]):
            counts["thumbnails"] += 1
            continue
        match = expression.fullmatch(path)
        if match is None and path.lower().endswith(".csv"):
            continue  # a plate map or the cells' centres
        if match is None:
            counts["files that do not match the pattern"] += 1
            other = other or path
            continue
        place = match.groupdict()
        plate = place.get("plate") or source.resolve().name
        row = {"plate": plate, "well": well_name(place["well"]), "site": int(place.get("site", 1))}
        rows.append({**row, "channel": place["channel"], "path": path})
    if not rows:
        seen = f"such as {other}" if other else "there is none but thumbnails" if counts else "the folder is empty"
        raise InputError(f'{source}: no file has the pattern "{pattern}" ({seen}); correct --pattern')
    return rows, dict(counts)


def _files(source: Path) -> list[str]:
    """Every file under `source` as its path with forward slashes, in order."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable") from error

    return sorted(
        (Path(folder) / name).relative_to(source).as_posix()
        for folder, _, names in os.walk(source, onerror=refuse)
        for name in names
    )
