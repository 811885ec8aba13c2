"""Find nuclei in a field's DNA channel: threshold, fill, split touching nuclei by a watershed; or by Cellpose.

H x W pixels, n nuclei. A centre (y, x) is in pixels of the field, the centre of the first pixel is 0, 0. Nothing is
random: the same field and settings give the same nuclei.

Cellpose downloads its weights on first use and keeps them in its own folder; they have their own licence. Its use here
follows the code of Cellpose 4.2.1 and has not been run with its weights: the tests replace its model.
"""

import math
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import reconstruction
from skimage.segmentation import watershed

from phenolens.core.counted import counted
from phenolens.core.errors import InputError, one_line
from phenolens.crops.config import LEAST_PX, NucleiConfig
from phenolens.crops.rank_filter import ranked
from phenolens.screens.read_image import read_field
from phenolens.screens.screen import FIELD, Screen, where_of

Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]
Value = TypeVar("Value", bound=np.generic)
CENTRES = [*FIELD, "object_number", "y", "x"]
DIAMETER = "diameter_px"  # of the disk of a nucleus's area; NaN where the border cuts it
MOST_OFF = 1.3  # ratio of the diameter found to the one searched by, or its inverse, from which there is a note
MOST_NESTED = 3  # how often the rest of a blob around its bright nuclei is searched again
SIDES = ndimage.generate_binary_structure(2, 1)  # pixels that share a side belong together
FIRST_REACH_PX = 6  # how far around a blob cores are looked for first


def find_nuclei(dna: npt.NDArray[Any], *, config: NucleiConfig | None = None) -> pd.DataFrame:
    """A row per nucleus in the DNA channel (H, W): see `nucleus_table`. InputError as in `label_nuclei`."""
    return nucleus_table(label_nuclei(dna, config=config))


def label_nuclei(dna: npt.NDArray[Any], *, config: NucleiConfig | None = None) -> Labels:
    """The label image (H, W) of a DNA channel: 0 background, 1..n nuclei in order of their first row.

    A channel of one value (black or saturated all over) and camera noise have none. InputError for an array that is
    not an image, for values that are not finite, and if Cellpose is asked for and it or its weights are missing.
    """
    config = config or NucleiConfig()
    image = np.asarray(dna)
    if image.ndim != 2 or not image.size:
        raise InputError(f"the DNA channel has shape {image.shape}; expected one image (height, width)")
    image = image.astype(np.float32)
    if not np.isfinite(image).all():
        n = int((~np.isfinite(image)).sum())
        raise InputError(
            f"the DNA channel has {counted(n, 'pixel')} without a finite value; expected camera counts: replace the "
            "image"
        )
    if image.min() == image.max():
        return np.zeros(image.shape, np.int32)
    if config.by == "cellpose":  # gets the diameter of a usual nucleus alone
        return np.asarray(load_cellpose().eval(image, diameter=config.diameter_px)[0]).astype(np.int32)
    smooth = ndimage.gaussian_filter(image, config.smooth * config.diameter_px)
    light = smooth - _background(smooth, config)
    # the root evens out bright and dim nuclei, as it does the noise of counted light
    otsu = float(threshold_otsu(np.sqrt(np.maximum(light, 0)))) ** 2
    mask = light > max(otsu, config.least_contrast * pixel_noise(image))
    mask = _opened(_filled(mask), _disk(0.08 * config.diameter_px))
    return _of_nuclear_size(_split(mask, light, config), config)


def nucleus_table(labels: npt.NDArray[np.integer]) -> pd.DataFrame:
    """A row per nucleus of a label image (H, W).

    `object_number` (its label), centroid `y`, `x` in px, `area_px`, `at_border` (whether it touches the border), and
    `diameter_px` of a disk of its area, NaN at the border.
    """
    rows, columns = np.nonzero(labels)
    of = labels[rows, columns]
    areas = np.bincount(of)
    number = np.flatnonzero(areas)
    area = areas[number].astype(float)
    y, x = (np.bincount(of, weights=places)[number] / area for places in (rows, columns))
    at_border = np.isin(number, np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    table = {"object_number": number, "y": y, "x": x, "area_px": area, "at_border": at_border}
    return pd.DataFrame({**table, DIAMETER: np.where(at_border, np.nan, 2 * np.sqrt(area / math.pi))})


def diameters_px(labels: npt.NDArray[np.integer]) -> Floats:
    """Diameters of disks of the nuclei's areas, in the order of a label image (H, W); NaN where the border cuts one."""
    return nucleus_table(labels)[DIAMETER].to_numpy()


def size_note(found_px: float, config: NucleiConfig) -> str | None:
    """A note where the median diameter of the nuclei found (NaN: none) is far from the one they were searched by."""
    if not found_px >= LEAST_PX or max(found_px / config.diameter_px, config.diameter_px / found_px) <= MOST_OFF:
        return None
    return (
        f"nuclei were searched as {config.diameter_px:.3g} px wide, the median one found is {found_px:.3g} px; if an "
        f"overlay shows that they are found well, give --nucleus-px {found_px:.0f}"
    )


def pixel_noise(image: Floats) -> float:
    """Robust standard deviation of the noise that is independent in every pixel, from 2 x 2 diagonal differences."""
    height, width = (length // 2 * 2 for length in image.shape)
    even = image[:height, :width]
    detail = (even[::2, ::2] - even[1::2, ::2] - even[::2, 1::2] + even[1::2, 1::2]) / 2
    return 1.4826 * float(np.median(np.abs(detail))) if detail.size else 0.0


def find_in_field(
    screen: Screen, field: pd.Series, *, channel: str, config: NucleiConfig | None = None
) -> pd.DataFrame:
    """The centres and diameters of one field (a row of the screen's table); it depends on no other field."""
    dna = read_field({channel: screen.files(field)[channel]}, where=where_of(field))[0]
    labels = label_nuclei(dna, config=config)
    return nucleus_table(labels).assign(**{name: field[name] for name in FIELD})[[*CENTRES, DIAMETER]]


def _background(light: Floats, config: NucleiConfig) -> Floats:
    """The light between nuclei (H, W): the darkest tenth of wide windows, on a coarse grid, smoothed."""
    step = max(1, int(config.diameter_px / 3))
    grid = light[::step, ::step]
    side = max(3, int(config.background * config.diameter_px / step) | 1)
    darkest = ranked(grid, np.ones((side, side), bool), rank=side**2 // 10, beyond="edge")
    low = ndimage.gaussian_filter(darkest, side / 4)
    rows, columns = (np.arange(length) / step for length in light.shape)
    wide = np.array([np.interp(columns, np.arange(low.shape[1]), row) for row in low], dtype=np.float32)
    above = np.minimum(rows.astype(int), len(low) - 1)
    below = np.minimum(above + 1, len(low) - 1)
    share = (rows - above).astype(np.float32)[:, None]
    return (1 - share) * wide[above] + share * wide[below]


def _split(mask: Mask, light: Floats, config: NucleiConfig) -> Labels:
    """Each blob of the mask divided among the nuclei whose cores are in it."""
    blobs, _ = ndimage.label(mask, SIDES)
    cores = np.zeros(mask.shape, np.int32)
    n = 0
    boxes = ndimage.find_objects(blobs)
    for number, box in enumerate(boxes, 1):
        blob = _framed(blobs[box] == number, 1, False)
        found = _cores(blob, _framed(light[box], 1, 0), config, nested=0)[1:-1, 1:-1]
        cores[box] = np.where(found > 0, found + n, cores[box])
        n += int(found.max())
    return watershed(_to_cores(cores == 0, mask, boxes), cores, mask=mask)


def _to_cores(outside: Mask, mask: Mask, boxes: list[tuple[slice, ...]]) -> Floats:
    """Each masked pixel's distance to the nearest core, which may be another blob's; 0 elsewhere.

    As scipy's of the whole field, which is slower: a pixel of a blob's box that finds a core within the box widened by
    `reach` is at least `reach` + 1 from all cores beyond.
    """
    distances = np.zeros(mask.shape)
    for box in boxes:
        reach = FIRST_REACH_PX
        while True:
            wide = tuple(slice(max(side.start - reach, 0), side.stop + reach) for side in box)
            inner = tuple(slice(own.start - around.start, own.stop - around.start) for own, around in zip(box, wide))
            found = np.where(mask[box], _to_outline(outside[wide])[inner], 0)
            if (farthest := found.max()) <= reach + 1:
                break
            reach = math.ceil(farthest)
        distances[box] = found
    return distances


def _cores(blob: Mask, light: Floats, config: NucleiConfig, *, nested: int) -> Labels:
    """The cores of the nuclei in one blob, numbered from 1: split by its outline, then by that of its bright part."""
    split = _by_shape(blob, config)
    if split.max() > 1 and nested < MOST_NESTED:
        return _joined([_cores(split == part, light, config, nested=nested + 1) for part in _numbers(split)])
    diameter = config.diameter_px
    bright = blob & (light > config.core * np.percentile(light[blob], 90))
    bright = _opened(_filled(bright), _disk(0.08 * diameter))
    if not bright.any():
        return blob.astype(np.int32)
    found = [_by_shape(bright, config)]
    least = 0.15 * config.usual_area_px
    if nested < MOST_NESTED and np.count_nonzero(blob & ~bright) >= least:
        # a dim nucleus next to a bright one lies below the bright one's threshold
        rest = blob & ~_dilated(bright, _within(0.1 * diameter))
        parts, _ = ndimage.label(_opened(rest, _disk(0.15 * diameter)), SIDES)
        large = [part for part in _numbers(parts) if (parts == part).sum() >= least]
        found += [_cores(parts == part, light, config, nested=nested + 1) for part in large]
    return _joined(found)


def _by_shape(blob: Mask, config: NucleiConfig) -> Labels:
    """The blob split at its necks: a watershed of its depth (distance to its outline)."""
    depth = ndimage.gaussian_filter(_to_outline(blob), config.split_smooth * config.diameter_px)
    depth = np.where(blob, depth, 0)
    n_peaks = np.count_nonzero((depth == ndimage.maximum_filter(depth, 3)) & (depth > 0))
    is_whole = ndimage.label(blob, SIDES)[1] == 1
    if is_whole and n_peaks == 1:  # what a watershed from one top gives, in a fraction of the time
        return blob.astype(np.int32)
    tops = _tops(depth, config.split_depth * config.diameter_px)
    if is_whole and tops.max() == 1:
        return blob.astype(np.int32)
    return watershed(-depth, tops, mask=blob)


def _to_outline(mask: Mask) -> Floats:
    """Each pixel's distance to the nearest outside the mask, which does not fill the box. As scipy's, less overhead."""
    nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
    y, x = (nearest[0] - np.arange(mask.shape[0])[:, None], nearest[1] - np.arange(mask.shape[1]))
    return np.sqrt(y * y + x * x)


def _filled(mask: Mask) -> Mask:
    """The mask with its holes: all that the outside does not reach. As scipy's binary_fill_holes, which is slower."""
    outside, _ = ndimage.label(_framed(~mask, 1, True), SIDES)
    return (outside != outside[0, 0])[1:-1, 1:-1]


def _framed(image: npt.NDArray[Value], width: int, value: float) -> npt.NDArray[Value]:
    """The image in a frame; np.pad takes longer than what is done with a nucleus."""
    height, across = image.shape
    framed = np.full((height + 2 * width, across + 2 * width), value, image.dtype)
    framed[width : width + height, width : width + across] = image
    return framed


def _dilated(mask: Mask, disk: Mask) -> Mask:
    """All that a disk at a pixel of the mask covers. As scipy's binary_dilation, which is slower for small disks."""
    reach, (height, width) = len(disk) // 2, mask.shape
    padded, found = _framed(mask, reach, False), np.zeros_like(mask)
    along = padded[:, reach : reach + width].copy()  # spread along the rows as far as a row of the disk, shortest first
    spread = 0
    for half, y in sorted(zip((disk.sum(axis=1) // 2).tolist(), range(len(disk)))):
        for x in range(spread + 1, half + 1):
            along |= padded[:, reach - x : reach - x + width]
            along |= padded[:, reach + x : reach + x + width]
        spread = half
        found |= along[y : y + height]
    return found


def _opened(mask: Mask, disk: Mask) -> Mask:
    """All disks that fit into the mask; nothing is inside beyond the border."""
    reach = len(disk) // 2
    fits = ~_dilated(_framed(~mask, reach, True), disk)
    return _dilated(fits, disk)[reach : reach + len(mask), reach : reach + mask.shape[1]]


def _numbers(labels: npt.NDArray[np.integer]) -> range:
    return range(1, int(labels.max()) + 1)


def _joined(parts: list[Labels]) -> Labels:
    """Label images that do not overlap as one, numbered consecutively."""
    together = np.zeros_like(parts[0])
    for part in parts:
        together = np.where(part > 0, part + together.max(), together)
    return together.astype(np.int32)


def _tops(depth: Floats, height: float) -> Labels:
    """Maxima of `depth` that are at least `height` above the saddle to a higher one, numbered from 1."""
    above_pass = depth - reconstruction(depth - height, depth)  # reaches `height` only at such a maximum
    tops, n = ndimage.label(above_pass > 0.8 * height, np.ones((3, 3)))
    reached = np.zeros(n + 1)
    reached[1:] = ndimage.maximum(above_pass, tops, np.arange(1, n + 1))
    return _renumbered(tops, reached > 0.999 * height)


def _of_nuclear_size(labels: Labels, config: NucleiConfig) -> Labels:
    """Nuclei of a plausible area, renumbered in order of their first pixel."""
    area = np.bincount(labels.ravel())
    fits = (area >= config.least_area * config.usual_area_px) & (area <= config.most_area * config.usual_area_px)
    fits[0] = False
    return _renumbered(labels, fits)


def _renumbered(labels: npt.NDArray[np.integer], kept: Mask) -> Labels:
    return np.where(kept, np.cumsum(kept), 0).astype(np.int32)[labels]


def _within(radius_px: float) -> Mask:
    """The places at most so far from the middle one."""
    reach = np.arange(-int(radius_px), int(radius_px) + 1)
    return np.sqrt(reach[:, None] ** 2 + reach**2) <= radius_px


def _disk(radius_px: float) -> Mask:
    reach = np.arange(-int(radius_px), int(radius_px) + 1)
    return reach[:, None] ** 2 + reach**2 <= radius_px**2 + 0.5


INSTALL = 'pip install "phenolens[cellpose]"'


@lru_cache(maxsize=1)
def load_cellpose() -> Any:
    """Cellpose's own default model, on a CUDA card where there is one; it downloads the weights the first time.

    InputError if it is not installed, or its weights are neither on this machine nor can be downloaded.
    """
    try:
        from cellpose import models
    except ImportError:
        raise InputError(f"Cellpose is not installed; {INSTALL}, or find nuclei without it (--cells found)") from None
    try:
        return models.CellposeModel(gpu=True)  # uses the processor if there is no GPU
    except Exception as error:  # download and weights raise many kinds
        reason = one_line(error) or type(error).__name__
        raise InputError(
            f"Cellpose cannot load its weights ({reason}); it downloads them on first use: run it once with a "
            "network connection, or find nuclei without it (--cells found)"
        ) from error
