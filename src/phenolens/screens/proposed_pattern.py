"""Make a pattern from the names of images: which of their parts are wells, plates, channels, fields and neither.

Names of one form are compared part by part. A part that all names share stays as it is; one that varies becomes a place
of the pattern where its texts or the wells that have them say which, and else `*`.
"""

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from phenolens.core.errors import InputError
from phenolens.screens.filename_pattern import PLACE, matching
from phenolens.screens.name_words import (
    CONDITION,
    FOLDER_OF_WELL,
    LABEL_LETTERS,
    LABELLED,
    SITE,
    TIME,
    UNLIKELY,
    WELL_FOLDER,
    WELLS,
    WELLS_IN_SMALL_LETTERS,
    Well,
    are_channels,
    has_well_folders,
    is_hardly_plate,
    is_of_one_well,
)
from phenolens.screens.pattern_questions import (
    MOST_ALONE,
    MOST_CHANNELS,
    fitting,
    not_shared,
    question,
    refuse_unlikely,
    tells_apart,
    trimmed,
    written_as,
)

MOST_FILES = 5_000  # whose names are compared, of some wells all
LEAST_WELLS = 8  # that are compared
LEAST_SHARE = 0.5  # of the images that a pattern must match
SHORT_NUMBERS = re.compile(r"\d{1,3}(?:[_ -]\d{1,3})*")  # of plates, sites or channels; longer are barcodes and dates
SEPARATORS = re.compile(r"([_\-. ()\[\]]+)")


def proposed_pattern(images: Sequence[str]) -> str:
    """A pattern made from the names of images; empty where no well is in them.

    InputError where two places in the names may be the well, or a text a plate, a channel or neither.
    """
    if not images:
        return ""
    well = _well_of_names(images)
    if well is None or well.written != "{well}":
        return trimmed(_pattern_of(images, well=well))
    found = [_texts_like(well, path) for path in images]
    readings: dict[int, str] = {}
    unclear: list[InputError] = []
    for place in _well_places(found):
        try:
            readings[place] = _pattern_of(images, well=well, well_place=place)
        except InputError as error:
            unclear.append(error)
    if not readings:
        raise unclear[0]
    if len(readings) + len(unclear) == 1:
        return trimmed(readings.popitem()[1])
    fits = {place: fitting(pattern, images, least=LEAST_SHARE) for place, pattern in readings.items() if pattern}
    texts = {place: next(of_name[place] for of_name in found if len(of_name) > place) for place in fits}
    named = [f'"{pattern}" (well {texts[place]})' for place, pattern in fits.items() if pattern]
    raise InputError(
        f"{images[0]}: more than one part of the name may be the well; give "
        + (f"--pattern {' or '.join(named)}" if named else "a --pattern with {well}, or --layout table")
    )


def of_some_wells(images: Sequence[str]) -> Sequence[str]:
    """About MOST_FILES of the images: all of some wells, whose channels and fields stay together."""
    if len(images) <= MOST_FILES:
        return images
    well = _well_of_names(images)
    found = [_texts_like(well, path) if well else [] for path in images]
    place = _well_places(found)[0]
    wells = [texts[place] if len(texts) > place else posixpath.dirname(path) for texts, path in zip(found, images)]
    kinds = sorted(set(wells))
    kept = set(kinds[:: max(1, min(len(images) // MOST_FILES, len(kinds) // LEAST_WELLS))])
    return [path for path, well in zip(images, wells) if well in kept]


def _well_of_names(images: Sequence[str]) -> Well | None:
    """How most names have their wells; None where folders have them, or nothing has."""
    names = list(map(posixpath.basename, images))

    def first(kinds: Sequence[Well]) -> Well | None:
        for well in kinds:
            n_found = sum(well.expression.search(name) is not None for name in names)
            is_seen = well.seen is None or any(map(well.seen.search, names))
            if n_found > LEAST_SHARE * len(names) and is_seen:
                return well
        return None

    return first(WELLS) or (None if has_well_folders(images) else first(WELLS_IN_SMALL_LETTERS))


def _texts_like(well: Well, path: str) -> list[str]:
    """The texts in the name of an image that look like wells."""
    return [match[0] for match in well.expression.finditer(posixpath.basename(path))]


def _well_places(found: Sequence[Sequence[str]]) -> list[int]:
    """Which of the texts like A01 in each name may be its well: one where that is clear, as in P1_B02_F01."""
    kinds = [set(texts) - {""} for texts in zip_longest(*found, fillvalue="")]
    rows = [{text.rstrip("0123456789").upper() for text in texts} for texts in kinds]
    of_rows = [place for place, letters in enumerate(rows) if len(letters) > 1]
    varying = [place for place, texts in enumerate(kinds) if len(texts) > 1]
    if not of_rows and len(varying) == 1 and not rows[varying[0]] & LABEL_LETTERS:
        return varying
    return of_rows or list(range(max(1, len(kinds))))


class _Name(NamedTuple):
    """The path of an image, with the places of a pattern for its well and for numbers with labels."""

    path: str
    folders: list[str]
    parts: list[str]  # of the name, and the separators between them
    well: str  # its text; empty where none is found

    @property
    def well_in_folder(self) -> str:
        """The folder and well of the image."""
        return f"{posixpath.dirname(self.path)}/{self.well}"


def _pattern_of(images: Sequence[str], *, well: Well | None, well_place: int = 0) -> str:
    """The pattern of names whose well is the text like A01 at a place of them (0 for the first); empty without wells.

    InputError, with the patterns that fit, where a text may be a plate, a channel or neither.
    """
    names = _of_one_form([_split(path, well=well, well_place=well_place) for path in images])
    paths, wells = [name.path for name in names], [name.well for name in names]
    # The places that are in the pattern, and what each holds; empty where a label says what it is.
    taken: dict[str, set[str]] = {place: set() for place in _places("/".join([*names[0].folders, *names[0].parts]))}
    tokens = _name_tokens(names, taken)
    of_plates: Sequence[str] = ()  # the folder of each image that is named after its plate
    is_below_wells = False  # whether the folders below are those of wells
    written = ["".join(tokens)]
    for depth in range(len(names[0].folders) - 1, -1, -1):  # from the images' own folders
        folders = [name.folders[depth] for name in names]
        is_above_wells, is_below_wells = is_below_wells, False
        if is_above_wells and "plate" not in taken and not is_hardly_plate(folders[0]):
            text = "{plate}"
        elif len(set(folders)) == 1:
            text = folders[0]
        elif "{well}" in names[0].folders[:depth]:
            of_wells = ["/".join([*name.path.split("/")[:depth], name.well]) for name in names]
            kind = _kind_of_folders(folders, taken)
            text = kind if kind != "*" else _token(folders, taken, of_wells=of_wells)
        elif is_below_wells := _are_of_wells(folders, paths, pattern=written[0]):
            text = "*"
        else:
            text = _kind_of_folders(folders, taken) if "plate" in taken else "{plate}"
        if text == "{plate}":
            of_plates, taken["plate"] = folders, set(folders)
        written.append(text)
    pattern = re.sub(r"\*+", "*", "/".join(reversed(written)))
    places = _places(pattern)
    if not ("well" in places or {"row", "column"} <= set(places)) or len(set(places)) < len(places):
        return ""
    _refuse_unclear(names, tokens, folder=pattern[: pattern.rfind("/") + 1])
    if any(map(CONDITION.fullmatch, of_plates)) and _is_one_a_well(of_plates, wells):
        raise question(not_shared(of_plates), [pattern, pattern.replace("{plate}", "*")], images=paths)
    refuse_unlikely(pattern, {place: texts for place, texts in taken.items() if texts}, paths)
    return pattern


def _places(text: str) -> list[str]:
    return [place for place, _ in PLACE.findall(text)]


def _split(path: str, *, well: Well | None, well_place: int) -> _Name:
    *folders, name = path.split("/")
    matches = [] if well is None else list(well.expression.finditer(name))
    text = ""
    if well is not None and matches:
        match = matches[well_place if well_place < len(matches) else 0]
        name = name[: match.start()] + match.expand(well.written) + name[match.end() :]
        text = match[0]
    for expression, written in LABELLED:
        name = expression.sub(written, name, count=1)
    of_wells = [place for place, folder in enumerate(folders) if WELL_FOLDER.fullmatch(folder)]
    if not text and of_wells:
        text, folders[of_wells[-1]] = folders[of_wells[-1]], "{well}"
    return _Name(path, folders, SEPARATORS.split(name), text)


def _of_one_form(names: Sequence[_Name]) -> Sequence[_Name]:
    """Most of the names, whose parts at one place mean the same; the parts of a plate are one."""
    kept = _largest_group(names)
    if len(kept) <= LEAST_SHARE * len(names):
        kept = _largest_group([name._replace(parts=_with_one_middle(name.parts)) for name in names])
    kept = _with_whole_plates(_with_labels(kept))
    endings = {name.parts[-1] for name in kept}  # tif, TIF and tiff, which a pattern does not tell apart
    ending = kept[0].parts[-1] if len(endings) == 1 else kept[0].parts[-1].lower()
    return [name._replace(parts=[*name.parts[:-1], ending]) for name in kept]


def _largest_group(names: Sequence[_Name]) -> Sequence[_Name]:
    """The largest group of names with as many parts, the well at the same place and the same ending."""
    groups: defaultdict[tuple[int | str, ...], list[_Name]] = defaultdict(list)
    for name in names:
        n_parts = [len(SEPARATORS.split(folder)) for folder in name.folders]
        groups[(*n_parts, len(name.parts), _well_at(name.parts), name.parts[-1].lower()[:3])].append(name)
    return max(groups.values(), key=len)


def _with_one_middle(parts: list[str]) -> list[str]:
    """The parts of a name with those between the well and the next place or the last part as one: taxol_1uM of DMSO."""
    start = _well_at(parts) + 2
    after = (place for place in range(start, len(parts) - 3) if PLACE.search(parts[place]))
    end = next(after, len(parts) - 3) - 1
    return [*parts[:start], "".join(parts[start:end]), *parts[end:]] if end > start else parts


def _with_labels(names: Sequence[_Name]) -> Sequence[_Name]:
    """The names that have a label, as s1, where most have it and other texts are of the same wells: montage."""
    of_wells = [name.well_in_folder for name in names]
    for texts in _columns(names):
        labelled = [PLACE.search(text) is not None for text in texts]
        if LEAST_SHARE < sum(labelled) / len(names) < 1 and not _is_one_a_well(texts, of_wells):
            return _with_labels([name for name, is_labelled in zip(names, labelled) if is_labelled])
    return names


def _with_whole_plates(names: Sequence[_Name]) -> Sequence[_Name]:
    """The names with their parts that vary before the well as one, with the words that dashes join to it.

    So the plates of Exp-01_B02 and 2021-01_A_B02 are Exp-01 and 2021-01_A. Numbers that keep single images apart stay,
    and so do channels and, beside the plate, what each well has one of, as a drug.
    """
    columns, wells = _columns(names), [name.well for name in names]
    before = columns[: _well_at(names[0].parts)]
    several = [place for place, texts in enumerate(before) if len(set(texts)) > 1]
    channels = {place for place in several if are_channels(columns[place])}
    varying = [place for place in several if place not in channels]
    varying = [place for place in varying if not _is_one_a_well(columns[place], wells)] or varying
    if not varying or any(PLACE.search(text) for texts in before for text in texts):
        return names
    first, last = varying[0], varying[-1]
    if channels & set(range(first, last)):
        return names
    while first > 1 and set(columns[first - 1]) == {"-"} and set(columns[last + 1]) != {"-"}:
        first -= 2
    whole = ["".join(name.parts[first : last + 1]) for name in names]
    if 2 * len(set(whole)) > len(whole):
        return names
    return [name._replace(parts=[*name.parts[:first], one, *name.parts[last + 1 :]]) for name, one in zip(names, whole)]


def _columns(names: Sequence[_Name]) -> list[tuple[str, ...]]:
    """The texts of all names at each part."""
    return list(zip(*(name.parts for name in names)))


def _well_at(parts: Sequence[str]) -> int:
    """Which part of a name has the well; 0 where none has."""
    return next((place for place, text in enumerate(parts) if "{well}" in text or "{row}" in text), 0)


def _name_tokens(names: Sequence[_Name], taken: dict[str, set[str]]) -> list[str]:
    """What stands at each part of the names in a pattern; known names of channels are the channel."""
    columns, at = _columns(names), _well_at(names[0].parts)
    of_wells = [name.well_in_folder for name in names]
    has_plates = sum(len(set(texts)) > 1 for texts in columns[:at]) > 1  # beside channels before the well
    varying = [place for place, texts in enumerate(columns) if (place > at or has_plates) and len(set(texts)) > 1]
    channels = [place for place in varying if are_channels(columns[place])]
    first = channels[0] if channels and "channel" not in taken else None
    if first is not None:
        taken["channel"] = set(columns[first])
    return [
        "{channel}" if place == first else _token(texts, taken, of_wells=of_wells, before_well=place < at)
        for place, texts in enumerate(columns)
    ]


def _token(
    texts: Sequence[str], taken: dict[str, set[str]], *, of_wells: Sequence[str], before_well: bool = False
) -> str:
    """What stands at one place of all names: itself, or a place of the pattern where it varies."""
    kinds = set(texts)
    if len(kinds) == 1:
        return texts[0]
    if any(map(PLACE.search, kinds)):
        return "*"
    are_numbers = all(map(str.isdecimal, kinds))
    meanings: tuple[str, ...] = ()
    if before_well:
        is_running = are_numbers and len(kinds) == len(texts) > len(set(of_wells))
        meanings = () if is_running else ("plate",)
    elif are_numbers:
        meanings = () if _is_one_a_well(texts, of_wells) else ("site", "channel")
    elif _vary_in_wells(texts, of_wells):
        meanings = ("channel",)
    for place in meanings:
        if place not in taken and (place != "channel" or len(kinds) <= MOST_CHANNELS):
            taken[place] = kinds
            return f"{{{place}}}"
    return posixpath.commonprefix(list(kinds)).rstrip("0123456789") + "*"


def _kind_of_folders(folders: Sequence[str], taken: dict[str, set[str]]) -> str:
    """What stands for folders that are not of plates: {channel} for DAPI and GFP, {t}h for 24h and 48h, else *."""
    for place in ("channel", "site", "t", "z"):
        if place not in taken and all(map(UNLIKELY["plate"][place].fullmatch, folders)):
            for written in written_as(place, set(folders)):
                taken[place] = set()
                return written
    return "*"


def _are_of_wells(folders: Sequence[str], paths: Sequence[str], *, pattern: str) -> bool:
    """Whether each folder is named after the one well of the files in it, whose names have the pattern."""
    if not all(map(FOLDER_OF_WELL.fullmatch, folders)):
        return False
    try:
        found, others = matching(Path(), list(map(posixpath.basename, paths)), pattern=pattern)
    except InputError:
        return False
    return not others and all(is_of_one_well(folder, {well}) for folder, well in zip(folders, found["well"]))


def _is_one_a_well(texts: Sequence[str], of_wells: Sequence[str]) -> bool:
    """Whether no well has two of the texts, as of a drug or dose; a single well is none."""
    held: dict[str, str] = {}
    return all(held.setdefault(well, text) == text for well, text in zip(of_wells, texts)) and len(held) > 1


def _vary_in_wells(texts: Sequence[str], of_wells: Sequence[str]) -> bool:
    """Whether a well has several of a few texts, and several wells have the same, as of channels."""
    kinds = set(texts)
    if not 1 < len(kinds) <= MOST_CHANNELS or all(map(str.isdecimal, kinds)) or any(map(PLACE.search, kinds)):
        return False
    if are_channels(kinds):
        return True
    n_pairs, n_wells = len(set(zip(of_wells, texts))), len(set(of_wells))
    return n_pairs > n_wells and (n_wells == 1 or n_pairs > len(kinds))


def vary_in_folders(texts: Sequence[str], paths: Sequence[str]) -> bool:
    """Whether a folder has images of several of the texts."""
    folders = list(map(posixpath.dirname, paths))
    return len(set(zip(texts, folders))) > len(set(folders))


Instead = Callable[[Iterable[str]], list[str]]  # the patterns with other texts at one part of the names


def _refuse_unclear(names: Sequence[_Name], tokens: Sequence[str], *, folder: str) -> None:
    """InputError for parts of the names that may be plates or not; `folder` is the pattern of their folders."""
    paths, of_wells = [name.path for name in names], [name.well_in_folder for name in names]
    columns, at = _columns(names), _well_at(names[0].parts)
    for place, (texts, token) in enumerate(zip(columns, tokens)):

        def instead(others: Iterable[str], place: int = place) -> list[str]:
            return [folder + "".join([*tokens[:place], text, *tokens[place + 1 :]]) for text in others]

        if token == "{plate}":
            is_named = place > 1 and columns[place - 2][0].isalpha()  # as by Exp in Exp_01
            may_be = ["site"] if is_named else ["site", "channel"]
            free = [what for what in may_be if not any(f"{{{what}}}" in one for one in tokens)]
            _refuse_numbers(texts, free, instead, paths)
            if vary_in_folders(texts, paths):
                _refuse_unlikely_plates(texts, of_wells, instead, paths)
        elif place > at and token.endswith("*") and _vary_in_wells(texts, of_wells):
            _refuse_pooled(texts, folder + "".join(tokens), instead, paths)


def _refuse_numbers(texts: Sequence[str], may_be: Sequence[str], instead: Instead, paths: Sequence[str]) -> None:
    """InputError for short numbers before the well that may be plates, or the places `may_be`."""
    kinds = sorted(set(texts))
    are_sites = all(len(kind) < 3 or kind[0] == "0" for kind in kinds)
    others = [what for what in may_be if what != "site" or are_sites]
    if others and all(map(SHORT_NUMBERS.fullmatch, kinds)):
        why = f'"{kinds[0]}" and "{kinds[1]}" may be plates or {"s or ".join(others)}s'
        raise question(why, instead(f"{{{what}}}" for what in ("plate", *others)), images=paths)


def _refuse_unlikely_plates(
    texts: Sequence[str], of_wells: Sequence[str], instead: Instead, paths: Sequence[str]
) -> None:
    """InputError for plates of one folder that have no well in common or one well each, or that repeat the folder."""
    kinds = sorted(set(texts))
    these = f'"{kinds[0]}" and "{kinds[1]}" may be plates'
    if _is_one_a_well(texts, of_wells):
        raise question(not_shared(kinds), instead(["{plate}", "*"]), images=paths)
    if _is_one_a_well(of_wells, texts) and len(set(of_wells)) > 1:
        written = [text for place in ("plate", "site") for text in written_as(place, kinds)]
        raise question(f"{these} or not, each has one well", instead(written), images=paths)
    folders = (posixpath.basename(posixpath.dirname(path)) for path in paths)
    rests = {text.removeprefix(folder) for text, folder in zip(texts, folders)}
    if rests.isdisjoint(kinds) and len(rests) > 1:  # P1_001 and P1_002 in the folder P1
        numbered = [re.sub(r"\d+", f"{{{what}}}", min(rests)) for what in ("site", "channel")]
        written = [f"{{plate}}{rest}" for rest in ("", *numbered)]
        raise question(f"{these}, or begin with the plate of their folder", instead(written), images=paths)


def _refuse_pooled(texts: Sequence[str], pattern: str, instead: Instead, paths: Sequence[str]) -> None:
    """InputError for texts that a well has several of, and that are no channels, where the pattern makes images one."""
    if tells_apart(pattern, paths):
        return
    kinds = sorted(set(texts))
    may_be = [place for place, one in (("t", TIME), ("site", SITE)) if all(map(one.fullmatch, kinds))]
    raise question(
        f'"{kinds[0]}" and "{kinds[1]}" are of the same wells, and no channels beside those in the names',
        instead(text for place in (*may_be, "plate") for text in written_as(place, kinds)),
        images=paths,
        alone=instead(kinds[:MOST_ALONE]),
    )
