"""What places in the names of images may be: the questions about them, with patterns that were tried on the names."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from phenolens.core.errors import InputError
from phenolens.screens.filename_pattern import PLACE, matching

MOST_CHANNELS = 12  # different texts at one place of the names that may be channels
MOST_ALONE = 3  # folders or texts named each with a pattern of its own
CHANNEL = re.compile(
    r"dapi|e?[gryc]fp|m?cherry|fitc|tritc|t(?:e?xas?|x)[ _-]?red|cy[357]|(?:af|alexa(?:fluor)?)[ _-]?\d{3}|"
    r"[3-8]\d\d ?nm|355|385|405|445|470|488|514|532|546|555|561|568|594|63[357]|64[027]|730|750|"
    r"dna|er|rna|agp|mito(?:tracker)?|golgi|actin|tubulin|phalloidin|wga|hoechst(?:[ _]?\d+)?|"
    r"blue|green|red|orange|yellow|cyan|magenta|far[ _-]?red|phase|dic|bf|bright[ _-]?field|"
    r"overlay|composite|merged?",
    re.IGNORECASE,
)
TIME = re.compile(
    r"(?:t|d|day|time(?:point)?)[ _-]?\d+h?|(?:\d{1,3}d)?\d{1,3} ?h(?:\d{1,2}m)?|"
    r"\d+ ?(?:hp[ti]|hrs?|hours?|min|sec|days?|d)",
    re.IGNORECASE,
)
CONDITION = re.compile(
    r"dmso|(?:un)?treated|vehicle|mock|controls?|ctrl|scrambled?|\d+ ?(?:(?-i:[npumµμ]?M)|[un]g)", re.IGNORECASE
)
SITE = re.compile(
    r"(?:f|fld|field|site|fov|xy|tile|pos(?:ition)?|point|scene|series|seq|region|roi|view|frame|image|img)[ _-]?\d+",
    re.IGNORECASE,
)
# What was done to cells, or which they are.
SAMPLE = re.compile(
    rf"{CONDITION.pattern}|pre|post|before|after|(?:donor|rep|replicate|run|plate|p|passage)[ _-]?\d+|\d{{1,3}}x|"
    r"wt|ko|wild[ -]?type|mutant|hela|u-?2[ -]?os|a-?549|hek(?:-?293t?)?|hep-?g2|mcf-?(?:7|10a)|hct-?116|"
    r"(?:htert-?)?rpe-?1|cho|cos-?7|(?:nih-?)?3t3|jurkat|k-?562|thp-?1|sh-?sy5y|caco-?2|huvec|i?psc|fibroblasts?|"
    r"hap-?1|mef|[a-z]{,4}\d{5,}|[a-p]\d\d",  # barcodes; wells
    re.IGNORECASE,
)
# Texts that are hardly a plate (of folders) or a channel, by what they are; empty where that is no place of a pattern.
UNLIKELY = {
    "plate": {
        "channel": CHANNEL,
        "site": SITE,
        "t": TIME,
        "z": re.compile(
            r"z(?:[ _-]?(?:stack|step|plane|slice))?[ _-]?\d+|(?:plane|slice|stack)[ _-]?\d+", re.IGNORECASE
        ),
        "": re.compile(
            r"raw|images?|tiffs?|mip|(?:max(?:imum)?[ _-]?)?(?:intensity[ _-]?)?proj(?:ection)?s?|best[ _-]?focus|"
            r"(?:illum(?:ination)?[ _-]?)?corrected|processed|stitched|masks?|backup|montages?|overviews?|previews?|"
            r"outlines?|labels?|segment(?:ation|ed)s?|cellprofiler|analysis|results?|outputs?",
            re.IGNORECASE,
        ),
    },
    "channel": {
        "site": SITE,
        "t": TIME,
        "z": re.compile(r"mip|max(?:proj)?|slice\d*|z\d+|stack|plane\d*", re.IGNORECASE),
        "plate": SAMPLE,
    },
}
NO_SITE = re.compile(r"\d{6,}|0\d{3,}")  # a date, barcode or running number
HOURS, WEEK = 6, 168  # fields are hardly numbered by multiples of 6, but hours are
FOLDER_OF_WELL = re.compile(r"(?:well[ _-]?)?(A[A-F]|[A-Z])[ _-]?(\d{1,2})", re.IGNORECASE)


def refuse_unlikely(
    pattern: str, held: Mapping[str, Collection[str]], images: Sequence[str], *, first: Sequence[str] = ()
) -> None:
    """InputError, with the patterns that fit, where the texts that a place holds may be something else.

    `held` are the texts of {plate}, {channel} and {site} where no label says what they are; `first` are patterns to
    give before the others.
    """
    asked = partial(question, images=images)
    for what in ("site", "channel"):
        numbers = set(filter(str.isdecimal, held.get(what, ())))
        odd = sorted(filter(NO_SITE.fullmatch, numbers))
        is_hours = len(numbers) > 1 and all(int(one) % HOURS == 0 and int(one) <= WEEK for one in numbers)
        is_day = bool(numbers) and re.search(rf"(?<!\d)20\d\d([-_.])\d\d\1\{{{what}\}}", pattern)
        if odd or is_day or (is_hours and numbers == set(held[what])):
            texts = ("{t}", "{plate}", "{site}", "{channel}", "*")
            others = [pattern.replace(f"{{{what}}}", text) for text in texts]
            text = odd[0] if odd else min(numbers, key=int)
            raise asked(f'"{text}" may be a {what} or not', [one for one in others if _is_clear(one)])
    for what, unlikely in UNLIKELY.items():
        for place, expression in unlikely.items():
            if odd := sorted(filter(expression.fullmatch, held.get(what, ()))):
                others = [pattern.replace(f"{{{what}}}", text) for text in written_as(place, held[what], pattern)]
                if f"{{{place}}}" in pattern:  # else of one text, as C01 of each channel's folder
                    bare = pattern.replace(f"{{{place}}}", "*")
                    others += [bare.replace(f"{{{what}}}", text) for text in written_as(place, held[what], bare)]
                alone = [pattern.replace(f"{{{what}}}", text) for text in sorted(held[what])[:MOST_ALONE]]
                raise asked(f'"{odd[0]}" may be a {what} or not', [*first, *others], alone=alone, last=pattern)
    is_clear = "{channel}" in pattern and not ("channel" in held and all(map(str.isdecimal, held["channel"])))
    if "site" in held and len(held["site"]) <= MOST_CHANNELS and not is_clear:
        swapped = {"{site}": "{channel}", "{channel}": "{site}"}
        other = re.sub(r"\{(?:site|channel)\}", lambda match: swapped[match[0]], pattern)
        raise asked("a number may be the channel or the site", [pattern, other])


def question(
    why: str, patterns: Sequence[str], *, images: Sequence[str], alone: Sequence[str] = (), last: str = ""
) -> InputError:
    """What is unclear, and the patterns, of those given, that fit the names; `alone` where no other pattern does.

    Those read part of the images. `last` is the pattern that would be taken if nothing were unclear.
    """
    fits = [fitting(pattern, images) for pattern in patterns]
    if not any(fits):
        fits = [fitting(pattern, images, least=0) for pattern in alone]
    plain = fitting(last, images) if last else ""
    quoted = [f'"{one}"' for one in dict.fromkeys([*fits, plain]) if one]
    advice = [f"--pattern {' or '.join(quoted)}"] if quoted else []
    if not any(fits):
        advice = [f"{one} if it is one" for one in advice]
        advice.append("a --pattern such as {plate}/{well}_s{site}_w{channel}.tif, or --layout table")
    return InputError(f"{images[0]}: {why}; give {', else '.join(advice)}")


def fitting(pattern: str, images: Sequence[str], *, least: float = 1) -> str:
    """The pattern, if need be with a place for one of its *, by which no two images are one; empty where none is.

    It matches `least` of the images, a share; of 0 it matches some, and has the folders that are not places.
    """
    for one in (pattern, *_with_a_place(pattern)):
        short = trimmed(one) if least else one.lstrip("*/")
        if tells_apart(short, images, least=least):
            return short
    return ""


def tells_apart(pattern: str, images: Sequence[str], *, least: float = 1) -> bool:
    """Whether a pattern matches this share of the images, and no two as one."""
    try:
        found, _ = matching(Path(), images, pattern=pattern)
    except InputError:
        return False
    return 0 < len(found) >= least * len(images) and not found.drop(columns="path").duplicated().any()


def _with_a_place(pattern: str) -> Iterator[str]:
    """The pattern with {plate} for a folder *, also moved there from the name; with {channel} or {site} for another."""
    for place in ("{plate}", "{channel}", "{site}"):
        for star in re.finditer(r"\*", pattern):
            before, after = pattern[: star.start()], pattern[star.end() :]
            is_folder = f"{before[-1:]}{after[:1]}" in ("/", "//")
            if is_folder if place == "{plate}" else "/" not in after and place not in pattern:
                yield from filter(_is_clear, (before + place + after.replace(place, one) for one in ("*", "{channel}")))


def trimmed(pattern: str) -> str:
    """The pattern without its first folders that are no places; the end of a path is enough."""
    while "/" in pattern and "{" not in pattern.split("/")[0]:
        pattern = pattern.split("/", 1)[1]
    return pattern


def _is_clear(pattern: str) -> bool:
    names = PLACE.findall(pattern)
    return len(names) == len(set(names))


def written_as(place: str, texts: Collection[str], pattern: str) -> list[str]:
    """What may stand for the texts at one place of the names if they are a `place`: h{t} for h24 and h48."""
    if not place or f"{{{place}}}" in pattern:
        return ["*"] if place else []
    if place in ("plate", "channel"):
        return [f"{{{place}}}"]
    parts = [re.split(r"(\d+)", text) for text in texts]
    if len({len(part) for part in parts}) > 1:
        return []
    columns = [set(column) for column in zip(*parts)]
    varying = [at for at, column in enumerate(columns) if len(column) > 1] or [1]
    written = ["*" if len(column) > 1 else min(column) for column in columns]
    return [
        "".join([*written[:at], f"{{{place}}}", *written[at + 1 :]]) for at in varying if at % 2 and at < len(parts[0])
    ]


def is_hardly_plate(folder: str) -> bool:
    """Whether a folder's name is that of a channel, field, time or processing."""
    return any(one.fullmatch(folder) for one in UNLIKELY["plate"].values())


def is_of_one_well(folder: str, wells: Collection[str]) -> bool:
    """Whether a folder with images of these wells is named after the only one."""
    match = FOLDER_OF_WELL.fullmatch(folder)
    return match is not None and {f"{match[1].upper()}{int(match[2]):02d}"} == set(wells)
