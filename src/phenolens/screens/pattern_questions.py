"""Questions about what places in the names of images are, each with patterns that were tried on the names."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from phenolens.core.errors import InputError
from phenolens.screens.filename_pattern import PLACE, matching
from phenolens.screens.name_words import UNLIKELY

MOST_CHANNELS = 12  # different texts at one place of the names that may be channels
MOST_ALONE = 3  # folders or texts named each with a pattern of its own
NO_SITE = re.compile(r"\d{6,}|0\d{3,}")  # a date, barcode or running number
HOURS, WEEK = 6, 168  # fields are hardly numbered by multiples of 6, but hours are


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


def not_shared(texts: Collection[str]) -> str:
    """What is unclear of texts that may be plates or not."""
    first, second, *_ = sorted(set(texts))
    return f'"{first}" and "{second}" may be plates or not, they have no well in common'


def refuse_unlikely(
    pattern: str, held: Mapping[str, Collection[str]], images: Sequence[str], *, first: Sequence[str] = ()
) -> None:
    """InputError, with the patterns that fit, where the texts that a place holds may be something else.

    `held` are the texts of {plate}, {channel} and {site} where no label says what they are; `first` are patterns to
    give before the others.
    """
    asked = partial(question, images=images)

    def instead(what: str, texts: Collection[str], among: str = pattern) -> list[str]:
        return [among.replace(f"{{{what}}}", text) for text in texts]

    for what in ("site", "channel"):
        numbers = set(filter(str.isdecimal, held.get(what, ())))
        odd = sorted(filter(NO_SITE.fullmatch, numbers))
        is_hours = len(numbers) > 1 and all(int(one) % HOURS == 0 and int(one) <= WEEK for one in numbers)
        is_day = bool(numbers) and re.search(rf"(?<!\d)20\d\d([-_.])\d\d\1\{{{what}\}}", pattern)
        if odd or is_day or (is_hours and numbers == set(held[what])):
            text = odd[0] if odd else min(numbers, key=int)
            others = instead(what, ("{t}", "{plate}", "{site}", "{channel}", "*"))
            raise asked(f'"{text}" may be a {what} or not', list(filter(_is_clear, others)))
    for what, unlikely in UNLIKELY.items():
        for place, expression in unlikely.items():
            if odd := sorted(filter(expression.fullmatch, held.get(what, ()))):
                others = instead(what, written_as(place, held[what], pattern))
                if f"{{{place}}}" in pattern:  # else of one text, as C01 of each channel's folder
                    bare = pattern.replace(f"{{{place}}}", "*")
                    others += instead(what, written_as(place, held[what], bare), bare)
                alone = instead(what, sorted(held[what])[:MOST_ALONE])
                raise asked(f'"{odd[0]}" may be a {what} or not', [*first, *others], alone=alone, last=pattern)
    is_clear = "{channel}" in pattern and not ("channel" in held and all(map(str.isdecimal, held["channel"])))
    if "site" in held and len(held["site"]) <= MOST_CHANNELS and not is_clear:
        swapped = {"{site}": "{channel}", "{channel}": "{site}"}
        other = re.sub(r"\{(?:site|channel)\}", lambda match: swapped[match[0]], pattern)
        raise asked("a number may be the channel or the site", [pattern, other])


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


def trimmed(pattern: str) -> str:
    """The pattern without its first folders that are no places; the end of a path is enough."""
    while "/" in pattern and "{" not in pattern.split("/")[0]:
        pattern = pattern.split("/", 1)[1]
    return pattern


def _with_a_place(pattern: str) -> Iterator[str]:
    """The pattern with {plate} for a folder *, also moved there from the name; with {channel} or {site} for another."""
    for place in ("{plate}", "{channel}", "{site}"):
        for star in re.finditer(r"\*", pattern):
            before, after = pattern[: star.start()], pattern[star.end() :]
            is_folder = f"{before[-1:]}{after[:1]}" in ("/", "//")
            if is_folder if place == "{plate}" else "/" not in after and place not in pattern:
                yield from filter(_is_clear, (before + place + after.replace(place, one) for one in ("*", "{channel}")))


def _is_clear(pattern: str) -> bool:
    """Whether a pattern names each place once."""
    names = PLACE.findall(pattern)
    return len(names) == len(set(names))


def written_as(place: str, texts: Collection[str], pattern: str = "") -> list[str]:
    """What may stand for the texts at one place of the names if they are a `place`: h{t} for h24 and h48."""
    if not place:
        return []
    if f"{{{place}}}" in pattern:
        return ["*"]
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
