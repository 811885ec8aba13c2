"""Features of the central cell of a crop, real or decoded: size, shape, texture, intensity and its distribution.

n crops, C channels, S x S px, each channel divided by its own maximum. Intensity is what exceeds the crop's background.
Lengths are for crops of 68 px and scale with the side (see `segment`). NaN where a region is empty or dark.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial import ConvexHull

from phenolens.core.colours import PAPER_COLOURS, RED, channel_label, checked_crops
from phenolens.core.errors import InputError
from phenolens.morphology.segment import Outlines, background, blurred, length_px, outlines

CHUNK = 32  # crops measured at once: bounds the memory and fits a processor's cache
FINE_PX, MIDDLE_PX, COARSE_PX = 0.7, 1.6, 4.0  # standard deviations of Gaussians; a texture is what lies between two
SPOT_PX, SPOT_HEIGHT = 1.2, 0.2  # size of a spot; its height over its surroundings, relative to the region's mean
NUCLEOLUS_PX, NUCLEOLUS_DEPTH = 9, 0.12  # widest dark spot; least depth, relative to the intensity around it
EDGE_PX = 4  # width of a cell's edge region, inwards
RING_PX = 6  # width of the ring around the nucleus
RIM_PX = 2  # of a nucleus: left out of its texture, since intensity falls off there
LEAST_PX = 12  # a region of fewer pixels has no mean

OF_NUCLEUS = {
    "nucleus_area_px": "nucleus area, px²",
    "nucleus_eccentricity": "nucleus elongation (eccentricity), 0 round to 1 a line",
    "nucleus_solidity": "nucleus solidity, share of its convex hull that it fills; low when lobed or fragmented",
    "n_nuclear_fragments": "fragments of the nucleus, 1 when whole",
    "nucleus_dark_spots": "dark spots (nucleoli) in the nucleus, number",
    "nucleus_dark_depth": "depth of the darkest spot (nucleolus) in the nucleus, relative to its surroundings",
    "nucleus_share": "nucleus share of the cell area, 0 to 1",
    "n_neighbours": "nuclei of other cells in the crop, number",
}
OF_CELL = {
    "cell_area_px": "cell area within the crop, px²",
    "cell_eccentricity": "cell elongation (eccentricity), 0 round to 1 a line",
    "cell_solidity": "cell solidity, share of its convex hull that it fills; low with corners and protrusions",
}
# `{}` is the channel, `{where}` the measured region: the nucleus for the channel of the nuclei, else the cell
OF_CHANNEL = {
    "mean": "mean {} in the {where} as a share of the crop's brightest pixel, above background",
    "fine_texture": "fine texture of {} in the {where} (1 to 2 px), relative to its mean",
    "coarse_texture": "coarse texture of {} in the {where} (2 to 5 px), relative to its mean",
    "sharpness": "sharpness of {}, share of the crop's contrast that is fine; low when out of focus",
}
OF_CYTOPLASM = {
    "spots": "bright spots of {} in the cell, number",
    "fibres": "fibres of {} in the cell, strength of thin bright lines relative to its mean",
    "alignment": "alignment of {} in the cell, 0 all directions to 1 a single one",
    "edge": "{} along the cell's edge, relative to its mean in the cell",
    "near_nucleus": "{} around the nucleus, relative to its mean outside the nucleus",
    "over_nucleus": "{} over the nucleus, relative to its mean outside the nucleus",
    "polarity_px": "distance of the centre of {} from the centre of the nucleus, px",
}
NEED_NUCLEUS = ("near_nucleus", "over_nucleus", "polarity_px")


def measures(crops: np.ndarray, *, channels: Sequence[str], nuclei: str | None = None) -> pd.DataFrame:
    """Measure the central cell of each crop, real or decoded.

    Args:
        crops: (n, C, S, S), each channel divided by its maximum.
        channels: The C names.
        nuclei: The channel of the nuclei; left out: the first whose name contains DNA, DAPI, Hoechst or DRAQ. Without
            one, features that need a nucleus are not columns.

    Returns:
        A row per crop; `describe` explains a column. NaN where a value cannot be measured.

    Raises:
        InputError: crops of other channels, values that are not finite, or no channel `nuclei`.
    """
    if len(set(channels)) < len(channels):
        raise InputError(f"channels {', '.join(channels)}: expected unique names")
    nuclei = nuclei_channel(channels) if nuclei is None else nuclei
    if nuclei is not None and nuclei not in channels:
        raise InputError(f'nuclei: there is no channel "{nuclei}"; expected one of {", ".join(channels)}')
    names = measure_names(channels, nuclei=nuclei)
    if np.shape(crops)[:1] == (0,):
        return pd.DataFrame(columns=names, dtype=float)
    crops = checked_crops(crops, channels, what="crops to be measured")
    parts = [
        _measured(np.maximum(crops[start : start + CHUNK], 0).astype(float), list(channels), nuclei)
        for start in range(0, len(crops), CHUNK)
    ]
    return pd.concat(parts, ignore_index=True)[names]


def measure_names(channels: Sequence[str], *, nuclei: str | None) -> list[str]:
    """The columns of `measures` for these channels, in order; `nuclei` None where no channel shows nuclei."""
    names = [*(OF_NUCLEUS if nuclei is not None else ()), *OF_CELL]
    for channel in channels:
        names += [f"{channel}_{what}" for what in OF_CHANNEL]
        if channel != nuclei:
            names += [f"{channel}_{what}" for what in OF_CYTOPLASM if nuclei is not None or what not in NEED_NUCLEUS]
    return names


def describe(name: str, *, nuclei: str | None = None) -> str:
    """A measure as a phrase with its unit: `nucleus area, px²`.

    Args:
        name: A column of `measures`.
        nuclei: The channel of the nuclei, where its name does not say so.
    """
    if name in OF_NUCLEUS or name in OF_CELL:
        return {**OF_NUCLEUS, **OF_CELL}[name]
    for what, phrase in {**OF_CHANNEL, **OF_CYTOPLASM}.items():
        channel = name.removesuffix(f"_{what}")
        if channel not in ("", name):
            shows_nuclei = channel == nuclei if nuclei is not None else nuclei_channel([channel]) is not None
            return phrase.format(channel_label(channel), where="nucleus" if shows_nuclei else "cell")
    raise InputError(f'measure "{name}": not known; expected one of {", ".join([*OF_NUCLEUS, *OF_CELL])}, or '
                     f'<channel>_ and one of {", ".join([*OF_CHANNEL, *OF_CYTOPLASM])}')  # fmt: skip


def short_name(measure: str) -> str:
    """A measure's phrase without unit or explanation: `nucleus area`."""
    return describe(measure).split(",")[0]


def by_subject(phrases: dict[str, str]) -> dict[str, dict[str, str]]:
    """Measures with their phrases by what they are of: the nucleus, the cell, or a channel."""
    groups: dict[str, dict[str, str]] = {}
    for name, phrase in phrases.items():
        groups.setdefault(_subject(name), {})[name] = phrase
    return groups


def _subject(name: str) -> str:
    if name in OF_NUCLEUS or name in OF_CELL:
        return "Nucleus" if name in OF_NUCLEUS else "Cell"
    ending = next(f"_{what}" for what in (*OF_CHANNEL, *OF_CYTOPLASM) if name.endswith(f"_{what}"))
    return channel_label(name.removesuffix(ending))


def nuclei_channel(channels: Sequence[str]) -> str | None:
    """The first of these channels whose name says that it shows nuclei."""
    words = next(words for words, colour in PAPER_COLOURS.items() if colour == RED)
    return next((name for name in channels if any(word in name.lower() for word in words)), None)


def area(masks: np.ndarray) -> np.ndarray:
    """Pixels (n,) of each mask (n, S, S)."""
    px = masks.sum(axis=(1, 2)).astype(float)
    return np.where(px > 0, px, np.nan)


def centre(masks: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Centre of mass (y, x), px, of each mask, its pixels weighted by `weights` (n, S, S) where given."""
    counted = masks if weights is None else masks * weights
    total = counted.sum(axis=(1, 2))
    total = np.where(total > 0, total, np.nan)
    along = np.arange(masks.shape[-1])
    return counted.sum(axis=2) @ along / total, counted.sum(axis=1) @ along / total


def eccentricity(masks: np.ndarray) -> np.ndarray:
    """Eccentricity (n,) of the ellipse with the same second moments, 0 to 1, as in CellProfiler."""
    y, x = centre(masks)
    along = np.arange(masks.shape[-1])
    dy, dx = along - y[:, None], along - x[:, None]
    px = area(masks)
    # a pixel is a square: 1/12 is the second moment of its own
    yy = np.einsum("nyx,ny,ny->n", masks, dy, dy) / px + 1 / 12
    xx = np.einsum("nyx,nx,nx->n", masks, dx, dx) / px + 1 / 12
    yx = np.einsum("nyx,ny,nx->n", masks, dy, dx) / px
    smaller, larger = _eigenvalues(yy, xx, yx)
    return np.sqrt(np.clip(1 - smaller / larger, 0, 1))


def solidity(masks: np.ndarray) -> np.ndarray:
    """Share (n,) of the convex hull around the pixels' corners that each mask fills."""
    return area(masks) / np.array([_hull_area(mask) for mask in masks])


def _measured(crops: np.ndarray, channels: list[str], nuclei: str | None) -> pd.DataFrame:
    """The measures of one chunk, in any order of columns."""
    by_channel = dict(zip(channels, np.moveaxis(crops, 1, 0), strict=True))
    dna = None if nuclei is None else by_channel[nuclei]
    others = crops[:, [channel != nuclei for channel in channels]]
    cell = outlines(dna, others)
    columns: dict[str, np.ndarray] = {} if dna is None else _of_nucleus(dna, cell)
    columns["cell_area_px"] = area(cell.body)
    columns["cell_eccentricity"], columns["cell_solidity"] = eccentricity(cell.body), solidity(cell.body)
    for channel, image in by_channel.items():
        found = _of_region(image, cell.nucleus_depth if channel == nuclei else cell.body_depth)
        if channel != nuclei:
            found |= _of_cytoplasm(image, cell)
        columns |= {f"{channel}_{what}": values for what, values in found.items()}
    return pd.DataFrame(columns).astype(float)


def _of_nucleus(dna: np.ndarray, cell: Outlines) -> dict[str, np.ndarray]:
    """Size, shape, fragments and nucleoli of the nucleus, and the number of neighbours."""
    found = cell.n_fragments > 0
    n_dark, depth = _dark_spots(dna, cell.nucleus_depth)
    return {
        "nucleus_area_px": area(cell.nucleus),
        "nucleus_eccentricity": eccentricity(cell.nucleus),
        "nucleus_solidity": solidity(cell.nucleus),
        "n_nuclear_fragments": np.where(found, cell.n_fragments, np.nan),
        "nucleus_dark_spots": n_dark,
        "nucleus_dark_depth": depth,
        "nucleus_share": area(cell.nucleus) / area(cell.body),
        "n_neighbours": np.where(found, cell.n_neighbours, np.nan),
    }


def _of_region(images: np.ndarray, depth: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and textures in a region, and the sharpness of the whole crop.

    `depth` (n, S, S): distance (px) of each pixel of the region to its edge, 0 outside.
    """
    side = images.shape[-1]
    fine_px, middle_px, coarse_px = (length_px(px, side) for px in (FINE_PX, MIDDLE_PX, COARSE_PX))
    mean = _mean_in(images - background(images), depth > 0)
    fine = blurred(images, fine_px)
    within = depth > length_px(RIM_PX, side)
    middle, coarse = (_blurred_within(images, within, px) for px in (middle_px, coarse_px))
    return {
        "mean": mean,
        "fine_texture": _ratio(_deviation_in(fine - middle, within), mean),
        "coarse_texture": _ratio(_deviation_in(middle - coarse, within), mean),
        "sharpness": _ratio((fine - blurred(images, middle_px)).std(axis=(1, 2)), fine.std(axis=(1, 2))),
    }


def _of_cytoplasm(images: np.ndarray, cell: Outlines) -> dict[str, np.ndarray]:
    """Spots, fibres and their alignment, and the distribution of intensity between edge, nucleus and sides."""
    side = images.shape[-1]
    intensity = np.maximum(images - background(images), 0)
    mean = _mean_in(intensity, cell.body)
    outside = cell.body & ~cell.nucleus
    inner = cell.body_depth > length_px(EDGE_PX, side)
    ring = outside & (cell.from_nucleus <= length_px(RING_PX, side))
    (y, x), (own_y, own_x) = centre(cell.body, intensity), centre(cell.nucleus)
    mean_outside = _mean_in(intensity, outside)
    return {
        "spots": _spots(images, cell.body, mean),
        "fibres": _ratio(_mean_in(_ridges(images), cell.body), mean),
        "alignment": _alignment(images, inner),
        "edge": _ratio(_mean_in(intensity, cell.body & ~inner), mean),
        "near_nucleus": _ratio(_mean_in(intensity, ring), mean_outside),
        "over_nucleus": _ratio(_mean_in(intensity, cell.nucleus), mean_outside),
        "polarity_px": np.hypot(y - own_y, x - own_x),
    }


def _spots(images: np.ndarray, region: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Number (n,) of bright spots in a region: peaks that exceed their surroundings by SPOT_HEIGHT of its `mean`."""
    side = images.shape[-1]
    height = blurred(images, length_px(SPOT_PX, side)) - blurred(images, length_px(2 * SPOT_PX, side))
    high = height > SPOT_HEIGHT * np.nan_to_num(mean)[:, None, None]
    return np.where(mean > 0, (_peaks(height) & high & region).sum(axis=(1, 2)), np.nan)


def _dark_spots(dna: np.ndarray, nucleus_depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number (n,) of dark spots in nuclei, and the depth (n,) of the darkest relative to its surroundings."""
    side = dna.shape[-1]
    intensity = blurred(dna, length_px(1, side))
    intensity = intensity - background(intensity)
    width = 2 * round(length_px(NUCLEOLUS_PX, side) / 2) + 1
    # a grey closing fills dark spots narrower than `width`
    filled = ndimage.grey_closing(intensity, (1, width, width))
    depth = np.divide(filled - intensity, filled, out=np.zeros_like(intensity), where=filled > 0)
    depth = np.where(nucleus_depth > length_px(2 * RIM_PX, side), depth, 0)
    n_spots = (_peaks(depth) & (depth > NUCLEOLUS_DEPTH)).sum(axis=(1, 2))
    found = nucleus_depth.any(axis=(1, 2))
    return np.where(found, n_spots, np.nan), np.where(found, depth.max(axis=(1, 2)), np.nan)


def _peaks(images: np.ndarray) -> np.ndarray:
    """Pixels (n, S, S) that are the maximum of their neighbourhood."""
    reach = 2 * max(1, round(length_px(2, images.shape[-1]))) + 1
    return images == ndimage.maximum_filter(images, (1, reach, reach))


def _ridges(images: np.ndarray) -> np.ndarray:
    """Ridge strength of each pixel, 0 off thin bright lines: minus the smaller curvature, less the other's size."""
    sigma = length_px(SPOT_PX, images.shape[-1])
    across, along = _eigenvalues(*(_derivative(images, order) for order in ((2, 0), (0, 2), (1, 1))))
    return sigma**2 * np.maximum(-across - np.abs(along), 0)


def _alignment(images: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Coherence (n,) of the structure tensor in a region, 0 to 1."""
    dy, dx = (_derivative(images, order) for order in ((1, 0), (0, 1)))
    yy, xx, yx = (_mean_in(one * other, region) for one, other in ((dy, dy), (dx, dx), (dy, dx)))
    return _ratio(np.hypot(yy - xx, 2 * yx), yy + xx)


def _derivative(images: np.ndarray, order: tuple[int, int]) -> np.ndarray:
    """Gaussian derivative (n, S, S) of these orders in y and x."""
    sigma = length_px(SPOT_PX, images.shape[-1])
    return ndimage.gaussian_filter(images, (0, sigma, sigma), order=(0, *order), mode="nearest")


def _eigenvalues(yy: np.ndarray, xx: np.ndarray, yx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The smaller and the larger eigenvalue of symmetric 2 x 2 matrices."""
    middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    return middle - half, middle + half


def _mean_in(images: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Mean (n,) of each image over its region; NaN where that has fewer than LEAST_PX pixels."""
    px = region.sum(axis=(1, 2))
    return np.where(px >= LEAST_PX, (images * region).sum(axis=(1, 2)) / np.maximum(px, 1), np.nan)


def _deviation_in(images: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Standard deviation (n,) of each image over its region."""
    mean = _mean_in(images, region)
    return np.sqrt(_mean_in(np.square(images - np.nan_to_num(mean)[:, None, None]), region))


def _blurred_within(images: np.ndarray, region: np.ndarray, sigma_px: float) -> np.ndarray:
    """Images under a Gaussian over the region's own pixels, so that its edge is no texture."""
    weight = blurred(region.astype(float), sigma_px)
    return np.divide(blurred(images * region, sigma_px), weight, out=np.zeros_like(images), where=weight > 0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole (n,), NaN where the whole is 0 or NaN."""
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _hull_area(mask: np.ndarray) -> float:
    """Area (px²) of the convex hull of a mask (S, S); NaN for an empty one."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return float("nan")
    # only the outermost corners of each row can be on the hull
    first = mask[rows].argmax(axis=1) - 0.5
    last = mask.shape[1] - mask[rows, ::-1].argmax(axis=1) - 0.5
    corners = [np.column_stack([rows + step, side]) for step in (-0.5, 0.5) for side in (first, last)]
    return float(ConvexHull(np.concatenate(corners)).volume)  # in two dimensions `volume` is the area
