"""Make a pattern from the names of images: which of their parts are wells, plates, channels, fields and neither."""

import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from phenolens.core.errors import InputError
from phenolens.screens.filename_pattern import PLACE, matching
from phenolens.screens.pattern_readings import (
    CHANNEL,
    CONDITION,
    FOLDER_OF_WELL,
    MOST_ALONE,
    MOST_CHANNELS,
    SITE,
    TIME,
    UNLIKELY,
    fitting,
    is_hardly_plate,
    is_of_one_well,
    question,
    refuse_unlikely,
    tells_apart,
    trimmed,
    written_as,
)

MOST_FILES = 5_000  # whose names are compared, of some wells all
LEAST_WELLS = 8  # that are compared
LEAST_SHARE = 0.5  # of the images that a pattern must match
# What wells look like in names: the first that most names have counts, if the first expression is in any.
ALONE = r"(?<![A-Za-z0-9{{])(?:{})(?![A-Za-z0-9])"  # between separators
OF_WELLS = tuple(
    (re.compile(seen), re.compile(well), written)
    for seen, well, written in (
        ("", r"(?<![A-Za-z0-9])([Rr])\d{1,3}([Cc])\d{1,3}(?!\d)", r"\1{row}\2{column}"),
        ("", r"(?<![A-Za-z0-9])([Ww]ell[_ ]?)[A-Pa-p]\d{1,2}(?!\d)", r"\1{well}"),
        (ALONE.format(r"A[A-F]\d\d"), ALONE.format(r"(?:A[A-F]|[A-Z])\d\d"), "{well}"),  # of 1,536
        ("", ALONE.format(r"[A-P](?:\d{1,2}|0\d\d)"), "{well}"),
        ("", r"(?<![A-Za-z0-9{])[A-P]([ _-]{1,3})\d{1,2}(?!\d)", r"{row}\1{column}"),
        ("", r"(?<![A-Za-z0-9])([Rr])\d{2,3}([_-][Cc])\d{2,3}(?!\d)", r"\1{row}\2{column}"),
        ("", r"(?<![A-Za-z0-9])([Rr]ow[ _-]?)\d{1,3}([ _-]?[Cc]ol(?:umn)?[ _-]?)\d{1,3}(?!\d)", r"\1{row}\2{column}"),
    )
)
OF_SMALL_LETTERS = tuple(
    (re.compile(ALONE.format(seen)), re.compile(ALONE.format(well)), "{well}")
    for seen, well in ((r"a[a-f]\d\d", r"(?:a[a-f]|[a-z])\d\d"), (r"[a-p]\d\d", r"[a-p]\d\d"))
)
WELL_FOLDER = re.compile(r"(?:A[A-F]|[A-P])\d{1,2}")
Written = tuple[re.Pattern[str], str]  # what a well looks like, and its places in a pattern
OF_NAMES = (
    (re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"), "{guid}"),
    (re.compile(r"(?<![A-Za-z])((?i:s|f|fld ?|(?:field|site|tile)[_ ]?|(?:fov|pos|point|xy)_?))\d+"), r"\1{site}"),
    (re.compile(r"(?<![A-Za-z])(w|W|ch|Ch|CH|c|C|[Cc]hannel[_ ]?)\d+"), r"\1{channel}"),
    (re.compile(r"(?<![A-Za-z])([Zz]_?)\d+"), r"\1{z}"),
    (re.compile(r"(?<![A-Za-z])([Tt]_?)\d+"), r"\1{t}"),
)
LABELS = frozenset("CFLPSTWZ")  # letters before the number of a channel, field, plate, site, time point, plane
# What names such as P1 may be, where all wells are in one row.
LIKE_WELLS = {
    "C": "channel",
    "D": "day",
    "E": "experiment",
    "F": "site",
    "P": "plate",
    "S": "site",
    "T": "time point",
    "W": "channel",
    "Z": "plane",
}
SHORT_NUMBERS = re.compile(r"\d{1,3}(?:[_ -]\d{1,3})*")  # of plates, sites or channels; longer are barcodes and dates
SEPARATORS = re.compile(r"([_\-. ()\[\]]+)")


def of_some_wells(images: Sequence[str]) -> Sequence[str]:
    """About MOST_FILES of the images: all of some wells, whose channels and fields stay together."""
    if len(images) <= MOST_FILES:
        return images
    well = _wells_written(images)
    found = [[match[0] for match in well[0].finditer(posixpath.basename(path))] if well else [] for path in images]
    place = _well_places(found)[0]
    wells = [texts[place] if len(texts) > place else posixpath.dirname(path) for texts, path in zip(found, images)]
    kinds = sorted(set(wells))
    kept = set(kinds[:: max(1, min(len(images) // MOST_FILES, len(kinds) // LEAST_WELLS))])
    return [path for path, well in zip(images, wells) if well in kept]


def proposed_pattern(images: Sequence[str]) -> str:
    """A pattern made from the names of images; empty where no well is in them.

    InputError where two places in the names may be the well, or a text a plate, a channel or neither.
    """
    well = _wells_written(images)
    if well is None or well[1] != "{well}":
        return trimmed(_pattern_of(images, well=well, well_place=0))
    wells = [well[0].findall(path.rsplit("/", 1)[-1]) for path in images]
    readings: dict[int, str] = {}
    unclear: list[InputError] = []
    for place in _well_places(wells):
        try:
            readings[place] = _pattern_of(images, well=well, well_place=place)
        except InputError as error:
            unclear.append(error)
    if not readings:
        raise unclear[0]
    if len(readings) + len(unclear) > 1:
        texts = {place: next(found[place] for found in wells if len(found) > place) for place in readings}
        fits = {place: fitting(pattern, images, least=LEAST_SHARE) for place, pattern in readings.items() if pattern}
        named = [f'"{pattern}" (well {texts[place]})' for place, pattern in fits.items() if pattern]
        raise InputError(
            f"{images[0]}: more than one part of the name may be the well; give "
            + (f"--pattern {' or '.join(named)}" if named else "a --pattern with {well}, or --layout table")
        )
    return trimmed(readings.popitem()[1])


def _wells_written(images: Sequence[str]) -> Written | None:
    """How most names have their wells; None where folders have them, or nothing has."""
    names = [path.rsplit("/", 1)[-1] for path in images]

    def first(kinds: Sequence[tuple[re.Pattern[str], re.Pattern[str], str]]) -> Written | None:
        for seen, well, written in kinds:
            n_found = sum(well.search(name) is not None for name in names)
            if n_found > LEAST_SHARE * len(names) and any(map(seen.search, names)):
                return well, written
        return None

    return first(OF_WELLS) or (None if has_well_folders(images) else first(OF_SMALL_LETTERS))


def has_well_folders(images: Sequence[str]) -> bool:
    """Whether folders are named after wells; not P1 and P2 alone."""
    folders = {folder for path in images for folder in path.split("/")[:-1] if WELL_FOLDER.fullmatch(folder)}
    rows = {folder.rstrip("0123456789") for folder in folders}
    return bool(rows) and not (len(rows) == 1 and rows <= set(LIKE_WELLS))


def _well_places(wells: Sequence[Sequence[str]]) -> list[int]:
    """Which of the texts like A01 in each name may be its well: one where that is clear, as in P1_B02_F01."""
    kinds = [set(found) - {""} for found in zip_longest(*wells, fillvalue="")]
    rows = [{text.rstrip("0123456789").upper() for text in texts} for texts in kinds]
    of_rows = [place for place, letters in enumerate(rows) if len(letters) > 1]
    varying = [place for place, texts in enumerate(kinds) if len(texts) > 1]
    if not of_rows and len(varying) == 1 and not rows[varying[0]] & LABELS:
        return varying
    return of_rows or list(range(max(1, len(kinds))))


def _pattern_of(images: Sequence[str], *, well: Written | None, well_place: int) -> str:
    """The pattern of names whose well is the text like A01 at a place of them (0 for the first).

    InputError, with the patterns that fit, where a text may be a plate, a channel or neither.
    """
    if not images:
        return ""
    marked = [_marked(path, well=well, well_place=well_place) for path in images]
    split = [[SEPARATORS.split(part) for part in parts] for parts, _ in marked]
    kept = _of_one_form(split)
    if len(kept) <= LEAST_SHARE * len(images):
        split = [[*folders, _with_one_middle(name)] for *folders, name in split]
        kept = _of_one_form(split)
    paths, alike, wells = zip(*_of_labels([(images[one], split[one], marked[one][1]) for one in kept]))
    names = [path.rsplit("/", 1)[-1] for path in paths]
    bare: dict[str, set[str]] = {}  # what each place holds that is read from texts without a label
    taken = {name for parts in alike[:1] for part in parts for token in part for name, _ in PLACE.findall(token)}
    columns = _with_whole_plates(list(zip(*(parts[-1] for parts in alike))), wells)
    if len(set(columns[-1])) > 1:  # tif, TIF and tiff, which a pattern does not tell apart
        columns[-1] = (columns[-1][0].lower(),) * len(paths)
    of_wells = [f"{posixpath.dirname(path)}/{text}" for path, text in zip(paths, wells)]
    tokens = _name_tokens(columns, of_wells, taken, bare)
    plates: Sequence[str] = ()  # the folders whose names are those of plates
    is_below_wells = False  # whether the folders below are those of wells
    written = ["".join(tokens)]
    for depth in range(len(alike[0]) - 2, -1, -1):  # folders, from the file's own
        folders = ["".join(parts[depth]) for parts in alike]
        above = "".join("".join(part) for part in alike[0][:depth])
        if is_below_wells and "plate" not in taken and not is_hardly_plate(folders[0]):
            written.append("{plate}")  # the folder above those of wells
            taken.add("plate")
            plates = folders
        elif len(set(folders)) == 1:
            written.append(folders[0])
        elif "{well}" in above or "{row}" in above:
            fields = ["/".join([*path.split("/")[:depth], text]) for path, text in zip(paths, wells)]
            kind = _kind_of_folders(folders, taken)
            written.append(kind if kind != "*" else _token(folders, taken, bare, of_wells=fields))
        elif is_below_wells := _are_of_wells(folders, names, pattern=written[0]):
            written.append("*")
            continue
        elif "plate" in taken:
            written.append(_kind_of_folders(folders, taken))
        else:
            written.append("{plate}")
            taken.add("plate")
            plates = folders
        is_below_wells = False
    pattern = re.sub(r"\*+", "*", "/".join(reversed(written)))
    places = [name for name, _ in PLACE.findall(pattern)]
    is_whole = "well" in places or {"row", "column"} <= set(places)
    if not is_whole or len(set(places)) < len(places):
        return ""
    folder = pattern.rpartition("/")[0]
    _refuse_unclear(columns, tokens, of_wells, paths, folder=folder and f"{folder}/")
    if any(map(CONDITION.fullmatch, plates)) and _is_one_a_well(plates, wells):
        raise question(not_shared(plates), [pattern, pattern.replace("{plate}", "*")], images=paths)
    refuse_unlikely(pattern, {**bare, "plate": {*plates, *bare.get("plate", ())}}, paths)
    return pattern


def _of_one_form(split: Sequence[list[list[str]]]) -> list[int]:
    """The largest group of paths with as many parts, the well at the same place and the same ending."""
    groups: defaultdict[tuple[int | str, ...], list[int]] = defaultdict(list)
    for number, parts in enumerate(split):
        at = _place_of_well([(token,) for token in parts[-1]])
        groups[(*map(len, parts), at, parts[-1][-1].lower()[:3])].append(number)
    return max(groups.values(), key=len)


def _with_one_middle(name: Sequence[str]) -> list[str]:
    """The parts of a name with those between the well and the next place or the last part as one: taxol_1uM of DMSO."""
    at = _place_of_well([(token,) for token in name])
    after = (place for place in range(at + 2, len(name) - 3) if PLACE.search(name[place]))
    end = next(after, len(name) - 3) - 1
    return [*name[: at + 2], "".join(name[at + 2 : end]), *name[end:]] if end > at + 2 else list(name)


def _of_labels(images: Sequence[tuple[str, list[list[str]], str]]) -> Sequence[tuple[str, list[list[str]], str]]:
    """The images whose names have a label, as s1, where most have it and other texts are of the same wells: montage."""
    for place in range(len(images[0][1][-1])):
        tokens = [parts[-1][place] for _, parts, _ in images]
        labelled = [PLACE.search(token) is not None for token in tokens]
        wells = [f"{posixpath.dirname(path)}/{well}" for path, _, well in images]
        if LEAST_SHARE < sum(labelled) / len(images) < 1 and not _is_one_a_well(tokens, wells):
            return _of_labels([image for image, is_labelled in zip(images, labelled) if is_labelled])
    return images


def _kind_of_folders(folders: Sequence[str], taken: set[str]) -> str:
    """What stands for folders that are not of plates: {channel} for DAPI and GFP, {t}h for 24h and 48h, else *."""
    for place in ("channel", "site", "t", "z"):
        is_place = place not in taken and all(map(UNLIKELY["plate"][place].fullmatch, folders))
        for written in written_as(place, set(folders), "") if is_place else []:
            taken.add(place)
            return written
    return "*"


def _name_tokens(
    columns: Sequence[Sequence[str]], of_wells: Sequence[str], taken: set[str], bare: dict[str, set[str]]
) -> list[str]:
    """What stands at each place of the names in a pattern; known names of channels are the channel."""
    at = _place_of_well(columns)
    has_plates = sum(len(set(column)) > 1 for column in columns[:at]) > 1  # beside channels before the well
    known = [
        place
        for place, column in enumerate(columns)
        if (place > at or has_plates) and len(set(column)) > 1 and _are_channels(column)
    ]
    first = known[0] if known and "channel" not in taken else -1
    if first >= 0:
        taken.add("channel")
        bare["channel"] = set(columns[first])
    return [
        "{channel}" if place == first else _token(column, taken, bare, of_wells=of_wells, before_well=place < at)
        for place, column in enumerate(columns)
    ]


def _refuse_unclear(
    columns: Sequence[Sequence[str]],
    tokens: Sequence[str],
    of_wells: Sequence[str],
    paths: Sequence[str],
    *,
    folder: str,
) -> None:
    """InputError for texts that vary within a well and are no channel, and for plates of which no well has two."""
    at = _place_of_well(columns)
    for place, (column, token) in enumerate(zip(columns, tokens)):

        def instead(text: str, place: int = place) -> str:
            return folder + "".join([*tokens[:place], text, *tokens[place + 1 :]])

        kinds = sorted(set(column))
        if token == "{plate}" and place < at and all(map(SHORT_NUMBERS.fullmatch, kinds)):
            is_named = place > 1 and columns[place - 2][0].isalpha()  # as by Exp in Exp_01
            fits = {"site": all(len(kind) < 3 or kind[0] == "0" for kind in kinds), "channel": not is_named}
            others = [what for what in fits if fits[what] and not any(f"{{{what}}}" in one for one in tokens)]
            if others:
                why = f'"{kinds[0]}" and "{kinds[1]}" may be plates or {"s or ".join(others)}s'
                raise question(why, [instead(f"{{{what}}}") for what in ("plate", *others)], images=paths)
        if token == "{plate}" and vary_in_folders(column, paths):
            if _is_one_a_well(column, of_wells):
                raise question(not_shared(kinds), [instead("{plate}"), instead("*")], images=paths)
            if _is_one_a_well(of_wells, column) and len(set(of_wells)) > 1:
                why = f'"{kinds[0]}" and "{kinds[1]}" may be plates or not, each has one well'
                written = [text for one in ("plate", "site") for text in written_as(one, kinds, "")]
                raise question(why, [instead(text) for text in written], images=paths)
            rests = {
                text.removeprefix(posixpath.basename(posixpath.dirname(path))) for text, path in zip(column, paths)
            }
            if rests.isdisjoint(kinds) and len(rests) > 1:  # P1_001 and P1_002 in the folder P1
                numbered = [re.sub(r"\d+", f"{{{what}}}", min(rests)) for what in ("site", "channel")]
                why = f'"{kinds[0]}" and "{kinds[1]}" may be plates, or begin with the plate of their folder'
                raise question(why, [instead(f"{{plate}}{rest}") for rest in ("", *numbered)], images=paths)
        if (
            place > at
            and token.endswith("*")
            and _vary_in_wells(column, of_wells)
            and not tells_apart(instead(token), paths)
        ):
            why = f'"{kinds[0]}" and "{kinds[1]}" are of the same wells, and no channels beside those in the names'
            may_be = [place for place, one in (("t", TIME), ("site", SITE)) if all(map(one.fullmatch, kinds))]
            written = [text for place in (*may_be, "plate") for text in written_as(place, kinds, "")]
            alone = [instead(text) for text in kinds[:MOST_ALONE]]
            raise question(why, [instead(text) for text in written], images=paths, alone=alone)


def not_shared(texts: Collection[str]) -> str:
    """What to ask about texts that may be plates or not."""
    first, second, *_ = sorted(set(texts))
    return f'"{first}" and "{second}" may be plates or not, they have no well in common'


def _is_one_a_well(texts: Sequence[str], of_wells: Sequence[str]) -> bool:
    """Whether no well has two of the texts, as of a drug or dose; a single well is none."""
    held: dict[str, str] = {}
    return all(held.setdefault(well, text) == text for well, text in zip(of_wells, texts)) and len(held) > 1


def vary_in_folders(texts: Sequence[str], paths: Sequence[str]) -> bool:
    """Whether a folder has images of several of the texts."""
    return len(set(zip(texts, map(posixpath.dirname, paths)))) > len(set(map(posixpath.dirname, paths)))


def _vary_in_wells(texts: Sequence[str], of_wells: Sequence[str]) -> bool:
    """Whether a well has several of a few texts, and several wells have the same, as of channels."""
    kinds = set(texts)
    if not 1 < len(kinds) <= MOST_CHANNELS or all(map(str.isdecimal, kinds)) or any(map(PLACE.search, kinds)):
        return False
    if _are_channels(kinds):
        return True
    pairs = set(zip(of_wells, texts))
    n_wells = len(set(of_wells))
    return len(pairs) > n_wells and (n_wells == 1 or len(pairs) > len(kinds))


def _are_channels(texts: Iterable[str]) -> bool:
    """Whether each text is the name of a channel, such as DAPI."""
    return all(map(CHANNEL.fullmatch, texts))


def _are_of_wells(folders: Sequence[str], names: Sequence[str], *, pattern: str) -> bool:
    """Whether each folder is named after the one well of the files in it, whose names have the pattern."""
    if not all(map(FOLDER_OF_WELL.fullmatch, folders)):
        return False
    try:
        found, others = matching(Path(), names, pattern=pattern)
    except InputError:
        return False
    return not others and all(is_of_one_well(folder, {well}) for folder, well in zip(folders, found["well"]))


def _place_of_well(columns: Sequence[Sequence[str]]) -> int:
    """Which part of the names has the well; 0 where none has."""
    return next((place for place, column in enumerate(columns) if "{well}" in column[0] or "{row}" in column[0]), 0)


def _with_whole_plates(columns: list[tuple[str, ...]], wells: Sequence[str]) -> list[tuple[str, ...]]:
    """The parts of the names with those that vary before the well as one, with the words that dashes join to it.

    So the plates of Exp-01_B02 and 2021-01_A_B02 are Exp-01 and 2021-01_A. Numbers that keep single images apart stay,
    and so do channels and, beside the plate, what each well has one of, as a drug.
    """
    before = range(_place_of_well(columns))
    several = [place for place in before if len(set(columns[place])) > 1]
    channels = {place for place in several if _are_channels(columns[place])}
    varying = [place for place in several if place not in channels]
    varying = [place for place in varying if not _is_one_a_well(columns[place], wells)] or varying
    if not varying or any(PLACE.search(text) for place in before for text in columns[place]):
        return columns
    first, last = varying[0], varying[-1]
    if channels & set(range(first, last)):
        return columns
    while first > 1 and set(columns[first - 1]) == {"-"} and set(columns[last + 1]) != {"-"}:
        first -= 2
    whole = tuple(map("".join, zip(*columns[first : last + 1])))
    return columns if 2 * len(set(whole)) > len(whole) else [*columns[:first], whole, *columns[last + 1 :]]


def _marked(path: str, *, well: Written | None, well_place: int) -> tuple[list[str], str]:
    """The parts of a path with the places of a pattern where a name says what a number is; and the text of the well."""
    *folders, name = path.split("/")
    text = ""
    if well is not None:
        matches = list(well[0].finditer(name))
        if matches:
            match = matches[well_place if well_place < len(matches) else 0]
            name = name[: match.start()] + match.expand(well[1]) + name[match.end() :]
            text = match[0]
    for expression, written in OF_NAMES:
        name = expression.sub(written, name, count=1)
    for place, folder in enumerate(reversed(folders), start=1):
        if not text and WELL_FOLDER.fullmatch(folder):
            folders[-place] = "{well}"
            text = folder
    return [*folders, name], text


def _token(
    values: Sequence[str],
    taken: set[str],
    bare: dict[str, set[str]],
    *,
    of_wells: Sequence[str],
    before_well: bool = False,
) -> str:
    """What stands at one place of all names: itself, or a place of the pattern where it varies."""
    kinds = set(values)
    if len(kinds) == 1:
        return values[0]
    if any(map(PLACE.search, kinds)):
        return "*"
    meanings: tuple[str, ...] = ()
    if before_well:
        is_running = len(kinds) == len(values) > len(set(of_wells)) and all(map(str.isdecimal, kinds))
        meanings = () if is_running else ("plate",)
    elif all(map(str.isdecimal, kinds)):
        meanings = () if _is_one_a_well(values, of_wells) else ("site", "channel")
    elif _vary_in_wells(values, of_wells):
        meanings = ("channel",)
    for name in meanings:
        if name not in taken and (name != "channel" or len(kinds) <= MOST_CHANNELS):
            taken.add(name)
            bare[name] = kinds
            return f"{{{name}}}"
    return posixpath.commonprefix(list(kinds)).rstrip("0123456789") + "*"
