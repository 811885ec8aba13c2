"""Read a screen from the names of its files, such as `{plate}/{well}_s{site}_w{channel}.tif`, and a plate map."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from phenolens.core.errors import InputError
from phenolens.core.progress import track
from phenolens.screens.config import LayoutConfig, unread_plate_maps
from phenolens.screens.file_listing import files_under
from phenolens.screens.image_files import OTHER_PICTURES
from phenolens.screens.instruments import INSTRUMENTS
from phenolens.screens.planes import screen_of_images
from phenolens.screens.screen import Screen
from phenolens.screens.well_names import well_at, well_name, well_of_index

# A channel has no underscore. ImageXpress puts an identifier (guid) at the end.
PLACES = {
    "plate": r"[^/]+?",
    "well": r"[A-Za-z]{1,2}\d{1,3}",
    "index": r"\d+",
    "row": r"(?:[A-Za-z]{1,2}|\d{1,3})",
    "column": r"\d{1,3}",
    "site": r"\d+",
    "channel": r"[^/_]+?",
    "z": r"\d+",
    "t": r"\d+",
    "guid": r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
}
NUMBERS = ("row", "column", "index", "site", "z", "t")  # places whose digits would run together
SIDE_BY_SIDE = r"(?P<row>[A-Za-z]{1,2}|\d{2}(?=\d{2}(?!\d))|\d{3}(?=\d{3}(?!\d)))(?P<column>\d{1,3})"  # B02, 0203
STAR = "[^/]*?"
PLACE = re.compile(r"\{(\w+)(?::(\d))?\}")
UNMATCHED = "files that do not match the pattern"
PICTURES = "pictures of kinds that are not read, such as JPEG: export the originals as TIFF"


def read_pattern(source: Path, *, config: LayoutConfig, skip_missing: bool = False) -> Screen:
    """The screen of the files under `source` whose path, or its end, has the pattern; treatments from the plate map.

    The pattern may be the name of an instrument. Without `{site}` each well has site 1; without `{plate}` the plate is
    the source folder's name; without `{channel}` each file holds all channels. Files that do not match are counted in
    `left_out` (but CSV), and so are hidden files and thumbnails. Files are not yet searched (see with_files). Raises
    InputError for a pattern without a well, when no file matches, as screen_of_images and as the plate map does.
    """
    source = Path(source)
    files, left_out = files_under(source)
    names = track(files, "Names of files read", total=len(files))
    images, other = matching(source, names, pattern=config.pattern, plate_wells=config.plate_wells)
    if images.empty:
        seen = f"such as {other[0]}" if other else f"there is none but {', '.join(left_out)}" if left_out else ""
        raise InputError(
            f'{source}: no file has the pattern "{config.pattern}" ({seen or "the folder is empty"}); correct --pattern'
        )
    n_pictures = sum(path.lower().endswith(OTHER_PICTURES) for path in other)
    return screen_of_images(
        images,
        source=source,
        config=config,
        skip_missing=skip_missing,
        left_out={**left_out, UNMATCHED: len(other) - n_pictures, PICTURES: n_pictures},
        notes=unread_plate_maps(files, source, config),
    )


def matching(
    source: Path, files: Iterable[str], *, pattern: str, plate_wells: int | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """The files that match: plate, well, site, path, and channel, z and t where the pattern has them; and the others.

    CSV files are neither. InputError as pattern_expression and well_of_index, and for a plate in two folders.
    """
    instrument = INSTRUMENTS.get(pattern.strip().lower())
    patterns = instrument.patterns if instrument else (pattern,)
    expressions = [pattern_expression(one, of_instrument=instrument is not None) for one in patterns]
    plate = source.resolve().name
    rows: list[dict[str, str | int]] = []
    others: list[str] = []
    kinds: Counter[frozenset[str]] = Counter()
    folder_of: dict[str, str] = {}  # of plates that are named by a folder
    for path in files:
        whole = f"{plate}/{path}" if instrument else path
        match = next((found for one in expressions if (found := one.fullmatch(whole))), None)
        if match is not None:
            if folder := _plate_folder(match):
                other = folder_of.setdefault(match["plate"], folder)
                if other != folder:
                    first, second = (text.removeprefix(f"{plate}/") if instrument else text for text in (other, folder))
                    raise InputError(
                        f'{source}: plate "{match["plate"]}" is in two folders, {first} and {second}; rename one of '
                        f"them, or read one folder alone ({source / second.split('/')[0]}); if they are one plate, say "
                        "in --pattern what the folders above it are, such as */{plate}/{well}_s{site}_w{channel}.tif"
                    )
            rows.append({**_row(match.groupdict(), plate=plate, plate_wells=plate_wells), "path": path})
            kinds[frozenset(match.groupdict())] += 1
        elif not path.lower().endswith(".csv"):  # a plate map or the cells' centres
            others.append(path)
    if len(kinds) > 1 and len({"channel" in kind for kind in kinds}) > 1:
        raise InputError(f'{source}: some files of "{pattern}" have a channel in their names, others do not; keep one')
    images = pd.DataFrame(rows)
    for axis in ("z", "t"):
        if axis in images:
            images[axis] = images[axis].fillna(1).astype(int)
    return images, others


def _plate_folder(match: re.Match[str]) -> str:
    """The folder that is named after the plate, with those above it; empty where none is."""
    if "plate" not in match.groupdict() or "/" not in match.string[match.end("plate") :]:
        return ""
    return match.string[: match.end("plate")] if match.start("plate") == len(match["above"] or "") else ""


def _row(place: dict[str, str | None], *, plate: str, plate_wells: int | None) -> dict[str, str | int]:
    row: dict[str, str | int] = {"plate": place.get("plate") or plate, "site": int(place.get("site") or 1)}
    if place.get("well"):
        row["well"] = well_name(str(place["well"]))
    elif place.get("index"):
        row["well"] = well_of_index(int(str(place["index"])), plate_wells)
    else:
        row["well"] = well_at(str(place["row"]), str(place["column"]))
    if place.get("channel"):
        row["channel"] = str(place["channel"])
    return row | {axis: int(str(place[axis])) for axis in ("z", "t") if place.get(axis)}


def pattern_expression(pattern: str, *, of_instrument: bool = False) -> re.Pattern[str]:
    """The pattern as a regular expression over a path with forward slashes; `*` is anything but a slash.

    `{z:3}` has three digits. An ending .tif or .tiff matches both, in any case; names of instruments match in any case.
    Raises InputError for a pattern without `{well}`, or `{row}` and `{column}`; for a place that is not known, named
    twice, or whose digits run into those of the next.
    """
    text = pattern.strip().lstrip("/")
    names = [name for name, _ in PLACE.findall(text)]
    problem = _problem(text, names)
    if problem:
        raise InputError(
            f'--pattern "{pattern}": {problem}; expected such as {{plate}}/{{well}}_s{{site}}_w{{channel}}.tif, also '
            "with {row} and {column}, {z}, {t}, * for what changes and {guid} for an identifier; or the name of an "
            f"instrument: {', '.join(INSTRUMENTS)}"
        )
    written = ""
    for part in re.split(r"(\{row\}\{column\}|\{\w+(?::\d)?\})", text):
        match = PLACE.fullmatch(part)
        if part == "{row}{column}":
            written += SIDE_BY_SIDE
        elif match:
            written += f"(?P<{match[1]}>{_of_width(match[1], match[2])})"
        else:
            written += STAR.join(re.escape(literal) for literal in part.split("*"))
    written = re.sub(r"\\\.(tif|png)f?$", lambda ending: rf"(?i:\.{ending[1]}f?)", written, flags=re.IGNORECASE)
    return re.compile(rf"(?P<above>.*/)?{written}", re.IGNORECASE if of_instrument else 0)


def unread_texts(pattern: str, images: Iterable[str]) -> list[list[str]]:
    """What each * in a pattern stands for, and the folders above it, where these are several texts."""
    stars = re.compile(pattern_expression(pattern).pattern.replace(STAR, f"({STAR})"))
    named = [number for name, number in stars.groupindex.items() if name != "above"]
    unread = [number for number in range(1, stars.groups + 1) if number not in named]
    matches = [match for path in images if (match := stars.fullmatch(path))]
    held = ({(match[number] or "").rstrip("/") for match in matches} for number in unread)
    return [sorted(texts) for texts in held if len(texts) > 1]


def _of_width(name: str, width: str | None) -> str:
    if width is None:
        return PLACES[name]
    return rf"[^/_]{{{width}}}" if name == "channel" else rf"\d{{{width}}}"


def _problem(text: str, names: list[str]) -> str:
    """What is wrong with a pattern; empty where nothing is."""
    strange = [name for name in re.findall(r"\{([^}]*)\}", text) if not PLACE.fullmatch(f"{{{name}}}")]
    strange += [name for name in names if name not in PLACES or names.count(name) > 1]
    if strange:
        return f"{{{strange[0]}}} is not known or occurs twice"
    of_wells = {"well", "index", "row", "column"} & set(names)
    if len(of_wells) > 1 and of_wells != {"row", "column"}:
        return f"it has {' besides '.join(f'{{{name}}}' for name in sorted(of_wells))}"
    if not of_wells or of_wells in ({"row"}, {"column"}):
        return "it has no {well}, no {index}, and not both {row} and {column}"
    for first, width, second in re.findall(r"\{(\w+)(:\d)?\}(?=\{(\w+)(?::\d)?\})", text):
        if not width and first in (*NUMBERS, "well") and second in NUMBERS and (first, second) != ("row", "column"):
            return f"the digits of {{{first}}}{{{second}}} run together; give their number, as {{{first}:3}}"
    return ""
