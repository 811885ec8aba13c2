"""Segment the central cell of a crop: its nucleus and its fragments, the cell body, and neighbouring nuclei.

n crops of S x S px. Lengths are for crops of 68 px and scale with the side, since a crop's side is chosen for the cells
in it. Each crop is segmented independently of the others in a stack.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from skimage.morphology import reconstruction
from skimage.segmentation import watershed

USUAL_SIDE_PX = 68
BACKGROUND_PERCENTILE = 2
LEAST_CONTRAST = 0.05  # of a nucleus over its background, shares of the channel's maximum; noise stays below
CENTRE_PX, CENTRE_PERCENTILE = 8, 80  # this percentile within this distance of the centre is a nucleus's intensity
HALF = 0.5  # a nucleus ends at half of its own intensity, sharp or blurred
SPLIT_BLUR_PX, SPLIT_DEPTH_PX = 1.0, 0.4  # each of two fragments is so much deeper than the neck between them
FRAGMENTS_WITHIN_PX = 18  # distance of fragments of the nucleus from the centre; neighbours are farther
LEAST_FRAGMENT_PX2, LEAST_NEIGHBOUR_PX2 = 8, 60
PERINUCLEAR_PX = 8
BODY_SHARE, FILLED_SHARE = 0.35, 0.5  # shares of the intensity around the nucleus at which a body ends
IN_PLANE = np.ones((3, 3), bool)
STACKED = np.stack([0 * IN_PLANE, IN_PLANE, 0 * IN_PLANE]).astype(bool)  # connects no two crops of a stack


@dataclass(frozen=True)
class Outlines:
    """The central cell of each crop."""

    nucleus: np.ndarray  # (n, S, S) bool, all fragments; empty where no nucleus was found
    body: np.ndarray  # (n, S, S) bool, including the nucleus
    n_fragments: np.ndarray  # (n,) fragments of the nucleus; 0 where none was found
    n_neighbours: np.ndarray  # (n,) nuclei of other cells in the crop

    @cached_property
    def nucleus_depth(self) -> np.ndarray:
        """Depth (n, S, S), px, within the nucleus, 0 outside."""
        return depth_in(self.nucleus)

    @cached_property
    def body_depth(self) -> np.ndarray:
        """Depth (n, S, S), px, within the body, 0 outside."""
        return depth_in(self.body)

    @cached_property
    def from_nucleus(self) -> np.ndarray:
        """Distance (n, S, S), px, to the nucleus, 0 within it."""
        return distance_to(self.nucleus)


def length_px(usual_px: float, side: int) -> float:
    """A length given for crops of USUAL_SIDE_PX, scaled to crops of this side."""
    return usual_px * side / USUAL_SIDE_PX


def blurred(images: np.ndarray, sigma_px: float) -> np.ndarray:
    """Images (n, S, S), each blurred with a Gaussian of this standard deviation."""
    return ndimage.gaussian_filter(images, (0, sigma_px, sigma_px), mode="nearest")


def background(images: np.ndarray) -> np.ndarray:
    """Background (n, 1, 1): a low percentile of each image (n, S, S)."""
    return np.percentile(images, BACKGROUND_PERCENTILE, axis=(1, 2), keepdims=True)


def distance_to(mask: np.ndarray) -> np.ndarray:
    """Distance (px) of each pixel to the mask (n, S, S) of its own crop; infinite where the mask is empty."""
    away = [ndimage.distance_transform_edt(~one) if one.any() else np.full(one.shape, np.inf) for one in mask]
    return np.reshape(away, mask.shape)


def depth_in(mask: np.ndarray) -> np.ndarray:
    """Distance (px) of each pixel of the mask (n, S, S) to its edge, 0 outside; the crop's border is not an edge."""
    return np.where(mask, distance_to(~mask), 0)


def outlines(dna: np.ndarray | None, others: np.ndarray) -> Outlines:
    """Segment the central cells of n crops.

    Args:
        dna: (n, S, S), the channel of the nuclei. Without it nuclei are empty and bodies are the bright region around
            the centre.
        others: (n, C, S, S), the other channels. Without any, bodies are the nuclei.
    """
    n, _, side, _ = others.shape
    if dna is None:
        nucleus, other_nuclei = np.zeros((n, side, side), bool), np.zeros((n, side, side), bool)
        n_fragments = n_neighbours = np.zeros(n, int)
    else:
        nucleus, other_nuclei, n_fragments, n_neighbours = _nuclei(dna)
    return Outlines(nucleus, _bodies(others, nucleus, other_nuclei), n_fragments, n_neighbours)


def _nuclei(dna: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Masks of the central nuclei and of all others (n, S, S), numbers of fragments and of neighbours (n,)."""
    n, side, _ = dna.shape
    intensity = blurred(dna, length_px(0.8, side))
    intensity = intensity - background(intensity)
    central = _from_centre(side) <= length_px(CENTRE_PX, side)
    level = np.percentile(intensity[:, central], CENTRE_PERCENTILE, axis=1)
    mask = intensity > HALF * level[:, None, None]
    mask[level < LEAST_CONTRAST] = False
    mask = np.reshape([ndimage.binary_fill_holes(one) for one in mask], dna.shape)  # nucleoli belong to the nucleus
    fragments = _split(mask)
    area, crop_of, y, x = _areas_and_centres(fragments)
    unit2 = length_px(1, side) ** 2
    middle = (side - 1) / 2
    near = np.hypot(y - middle, x - middle) <= length_px(FRAGMENTS_WITHIN_PX, side)
    own = near & (area >= LEAST_FRAGMENT_PX2 * unit2)
    other = ~near & (area >= LEAST_NEIGHBOUR_PX2 * unit2)
    n_fragments, n_neighbours = (np.bincount(crop_of[kind], minlength=n) for kind in (own, other))
    is_own, is_other = (np.concatenate([np.zeros(1, bool), kind]) for kind in (own, other))  # label 0 is neither
    return is_own[fragments], is_other[fragments], n_fragments, n_neighbours


def _split(mask: np.ndarray) -> np.ndarray:
    """Labels (n, S, S) from 1 over the stack: touching parts of a mask are split by a distance-transform watershed."""
    depth = blurred(depth_in(mask), length_px(SPLIT_BLUR_PX, mask.shape[-1])) * mask
    labels, n_labels = ndimage.label(mask, STACKED)
    peaks, n_peaks = ndimage.label((depth == ndimage.maximum_filter(depth, (1, 3, 3))) & mask, STACKED)
    n_peaks_in, n_parts_in = _number_by_crop(peaks, n_peaks), _number_by_crop(labels, n_labels)
    for crop in np.flatnonzero(n_peaks_in > n_parts_in):  # one maximum per part: nothing to split
        parts = _watershed(depth[crop], labels[crop], least=length_px(SPLIT_DEPTH_PX, mask.shape[-1]))
        labels[crop] = np.where(parts > 0, parts + labels.max(), 0)
    return labels


def _number_by_crop(labels: np.ndarray, n_labels: int) -> np.ndarray:
    """How many labels (n,) there are in each crop of a stack."""
    crop, y, x = np.nonzero(labels)
    crop_of = np.zeros(n_labels + 1, int)
    crop_of[labels[crop, y, x]] = crop
    return np.bincount(crop_of[1:], minlength=len(labels))


def _watershed(depth: np.ndarray, labels: np.ndarray, *, least: float) -> np.ndarray:
    """Labels (S, S) of one crop's parts: maxima of depth at least `least` above the saddle to any other."""
    flooded = reconstruction(np.maximum(depth - least, 0), depth, footprint=IN_PLANE)
    maxima, n_maxima = ndimage.label((depth - flooded >= least * (1 - 1e-6)) & (labels > 0), IN_PLANE)
    flat = (labels > 0) & ~np.isin(labels, labels[maxima > 0])  # parts too shallow for a maximum are not split
    maxima[flat] = labels[flat] + n_maxima
    return watershed(-depth, maxima, connectivity=IN_PLANE, mask=labels > 0)


def _areas_and_centres(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Area (px²), crop and centre (y, x) of each label from 1 to the largest; area 0 for a missing one."""
    crop, y, x = np.nonzero(labels)
    which = labels[crop, y, x] - 1
    n = int(labels.max(initial=0))
    area = np.bincount(which, minlength=n)
    sums = [np.bincount(which, weights=values, minlength=n) for values in (crop, y, x)]
    of_crop, of_y, of_x = (total / np.maximum(area, 1) for total in sums)
    return area, np.rint(of_crop).astype(int), of_y, of_x


def _bodies(others: np.ndarray, nucleus: np.ndarray, other_nuclei: np.ndarray) -> np.ndarray:
    """Bodies (n, S, S): bright in the other channels, nearer to the own nucleus than to another, connected to it."""
    n_channels, side = others.shape[1:3]
    has_nucleus = nucleus.any(axis=(1, 2), keepdims=True)
    centre = np.tile(np.asarray(_from_centre(side) <= length_px(CENTRE_PX, side)), (len(nucleus), 1, 1))
    seed = np.where(has_nucleus, nucleus, centre)
    away = distance_to(seed)
    if not n_channels:
        return nucleus.copy()
    around = (away <= length_px(PERINUCLEAR_PX, side)) & ~nucleus
    share = np.zeros(nucleus.shape)
    for channel in range(n_channels):
        intensity = blurred(others[:, channel], length_px(1, side))
        dark = background(intensity)[:, 0, 0]
        # a decoded nucleus may fill its crop: then nothing is around it, and the body is the nucleus
        level = np.array([np.median(image[ring]) if ring.any() else 0.0 for image, ring in zip(intensity, around)])
        # a crop filled by cells has no background: its darkest pixels are cell too, down to FILLED_SHARE
        ends = np.minimum(dark + BODY_SHARE * (level - dark), FILLED_SHARE * level)
        ends = np.where(level > 0, ends, np.inf)
        # 1 at the body's edge, more inside; clipped so that bright lines do not dominate
        share += np.clip(intensity / np.where(ends > 0, ends, np.inf)[:, None, None], 0, 2)
    bright = share / n_channels > 1
    own = (bright & (away < distance_to(other_nuclei))) | seed
    labels, _ = ndimage.label(own, STACKED)
    kept = np.zeros(int(labels.max(initial=0)) + 1, bool)
    kept[np.unique(labels[seed])] = True
    kept[0] = False
    return np.reshape([ndimage.binary_fill_holes(one) for one in kept[labels]], nucleus.shape)


def _from_centre(side: int) -> np.ndarray:
    """Distance (px) of each pixel (S, S) to the crop's centre."""
    along = np.arange(side) - (side - 1) / 2
    return np.hypot(along[:, None], along)
