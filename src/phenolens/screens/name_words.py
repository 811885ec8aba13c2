"""What words in the names of images and folders say: which look like wells, channels, fields, times, samples."""

import re
from collections.abc import Collection
from typing import NamedTuple

from phenolens.screens.filename_pattern import PLACES

# Expressions of texts between separators.
ALONE = r"(?<![A-Za-z0-9{{])(?:{})(?![A-Za-z0-9])"


class Well(NamedTuple):
    """One way to write a well in a name."""

    expression: re.Pattern[str]
    written: str  # its places in a pattern
    seen: re.Pattern[str] | None = None  # what at least one of the names has


# The first that most names have counts.
WELLS = (
    Well(re.compile(r"(?<![A-Za-z0-9])([Rr])\d{1,3}([Cc])\d{1,3}(?!\d)"), r"\1{row}\2{column}"),
    Well(re.compile(r"(?<![A-Za-z0-9])([Ww]ell[_ ]?)[A-Pa-p]\d{1,2}(?!\d)"), r"\1{well}"),
    Well(re.compile(ALONE.format(r"(?:A[A-F]|[A-Z])\d\d")), "{well}", re.compile(ALONE.format(r"A[A-F]\d\d"))),  # 1,536
    Well(re.compile(ALONE.format(r"[A-P](?:\d{1,2}|0\d\d)")), "{well}"),
    Well(re.compile(r"(?<![A-Za-z0-9{])[A-P]([ _-]{1,3})\d{1,2}(?!\d)"), r"{row}\1{column}"),
    Well(re.compile(r"(?<![A-Za-z0-9])([Rr])\d{2,3}([_-][Cc])\d{2,3}(?!\d)"), r"\1{row}\2{column}"),
    Well(
        re.compile(r"(?<![A-Za-z0-9])([Rr]ow[ _-]?)\d{1,3}([ _-]?[Cc]ol(?:umn)?[ _-]?)\d{1,3}(?!\d)"),
        r"\1{row}\2{column}",
    ),
)
WELLS_IN_SMALL_LETTERS = (
    Well(re.compile(ALONE.format(r"(?:a[a-f]|[a-z])\d\d")), "{well}", re.compile(ALONE.format(r"a[a-f]\d\d"))),
    Well(re.compile(ALONE.format(r"[a-p]\d\d")), "{well}"),
)
WELL_FOLDER = re.compile(r"(?:A[A-F]|[A-P])\d{1,2}")
FOLDER_OF_WELL = re.compile(r"(?:well[ _-]?)?(A[A-F]|[A-Z])[ _-]?(\d{1,2})", re.IGNORECASE)

# Labels that say what the number behind them is, and what stands for both in a pattern.
SITE_LABELS = "fld|field|site|tile|fov|pos|point|xy"
LABELLED = (
    (re.compile(PLACES["guid"]), "{guid}"),
    (re.compile(rf"(?<![A-Za-z])((?i:[sf]|(?:{SITE_LABELS})[ _]?))\d+"), r"\1{site}"),
    (re.compile(r"(?<![A-Za-z])(w|W|ch|Ch|CH|c|C|[Cc]hannel[_ ]?)\d+"), r"\1{channel}"),
    (re.compile(r"(?<![A-Za-z])([Zz]_?)\d+"), r"\1{z}"),
    (re.compile(r"(?<![A-Za-z])([Tt]_?)\d+"), r"\1{t}"),
)
LABEL_LETTERS = frozenset("CFLPSTWZ")  # before the number of a channel, field, plate, site, time point, plane
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

CHANNEL = re.compile(
    r"dapi|e?[gryc]fp|m?cherry|fitc|tritc|t(?:e?xas?|x)[ _-]?red|cy[357]|(?:af|alexa(?:fluor)?)[ _-]?\d{3}|"
    r"[3-8]\d\d ?nm|355|385|405|445|470|488|514|532|546|555|561|568|594|63[357]|64[027]|730|750|"
    r"dna|er|rna|agp|mito(?:tracker)?|golgi|actin|tubulin|phalloidin|wga|hoechst(?:[ _]?\d+)?|"
    r"blue|green|red|orange|yellow|cyan|magenta|far[ _-]?red|phase|dic|bf|bright[ _-]?field|"
    r"overlay|composite|merged?",
    re.IGNORECASE,
)
SITE = re.compile(
    rf"(?:f|{SITE_LABELS}|position|scene|series|seq|region|roi|view|frame|image|img)[ _-]?\d+", re.IGNORECASE
)
TIME = re.compile(
    r"(?:t|d|day|time(?:point)?)[ _-]?\d+h?|(?:\d{1,3}d)?\d{1,3} ?h(?:\d{1,2}m)?|"
    r"\d+ ?(?:hp[ti]|hrs?|hours?|min|sec|days?|d)",
    re.IGNORECASE,
)
CONDITION = re.compile(
    r"dmso|(?:un)?treated|vehicle|mock|controls?|ctrl|scrambled?|\d+ ?(?:(?-i:[npumµμ]?M)|[un]g)", re.IGNORECASE
)
# What was done to cells, or which they are.
SAMPLE = re.compile(
    rf"{CONDITION.pattern}|pre|post|before|after|(?:donor|rep|replicate|run|plate|p|passage)[ _-]?\d+|\d{{1,3}}x|"
    r"wt|ko|wild[ -]?type|mutant|hela|u-?2[ -]?os|a-?549|hek(?:-?293t?)?|hep-?g2|mcf-?(?:7|10a)|hct-?116|"
    r"(?:htert-?)?rpe-?1|cho|cos-?7|(?:nih-?)?3t3|jurkat|k-?562|thp-?1|sh-?sy5y|caco-?2|huvec|i?psc|fibroblasts?|"
    r"hap-?1|mef|[a-z]{,4}\d{5,}|[a-p]\d\d",  # barcodes; wells
    re.IGNORECASE,
)
PROCESSING = re.compile(
    r"raw|images?|tiffs?|mip|(?:max(?:imum)?[ _-]?)?(?:intensity[ _-]?)?proj(?:ection)?s?|best[ _-]?focus|"
    r"(?:illum(?:ination)?[ _-]?)?corrected|processed|stitched|masks?|backup|montages?|overviews?|previews?|"
    r"outlines?|labels?|segment(?:ation|ed)s?|cellprofiler|analysis|results?|outputs?",
    re.IGNORECASE,
)
PLANE_FOLDER = re.compile(
    r"z(?:[ _-]?(?:stack|step|plane|slice))?[ _-]?\d+|(?:plane|slice|stack)[ _-]?\d+", re.IGNORECASE
)
PLANE = re.compile(r"mip|max(?:proj)?|slice\d*|z\d+|stack|plane\d*", re.IGNORECASE)
# Texts that are hardly a plate (of folders) or a channel, by the place of a pattern that they are instead, if any.
UNLIKELY = {
    "plate": {"channel": CHANNEL, "site": SITE, "t": TIME, "z": PLANE_FOLDER, "": PROCESSING},
    "channel": {"site": SITE, "t": TIME, "z": PLANE, "plate": SAMPLE},
}


def are_channels(texts: Collection[str]) -> bool:
    """Whether each text is the name of a channel, such as DAPI."""
    return all(map(CHANNEL.fullmatch, texts))


def is_hardly_plate(folder: str) -> bool:
    """Whether a folder's name is that of a channel, field, time or processing."""
    return any(one.fullmatch(folder) for one in UNLIKELY["plate"].values())


def is_of_one_well(folder: str, wells: Collection[str]) -> bool:
    """Whether a folder with images of these wells is named after the only one."""
    match = FOLDER_OF_WELL.fullmatch(folder)
    return match is not None and {f"{match[1].upper()}{int(match[2]):02d}"} == set(wells)


def has_well_folders(images: Collection[str]) -> bool:
    """Whether folders are named after wells; not P1 and P2 alone."""
    folders = {folder for path in images for folder in path.split("/")[:-1] if WELL_FOLDER.fullmatch(folder)}
    rows = {folder.rstrip("0123456789") for folder in folders}
    return bool(rows) and not (len(rows) == 1 and rows <= set(LIKE_WELLS))
