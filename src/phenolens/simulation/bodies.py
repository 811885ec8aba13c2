"""Render the nuclei and cell bodies of a simulated field: outlines, chromatin texture, diffuse and cortical signal.

Each cell is rendered in a window of SIDE_PX x SIDE_PX around its centre. Channels: DNA, tubulin, actin.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy import fft

Cell = Any  # a row of the cell table, with its columns as attributes
HALF_PX = 78  # half the side of a window; no cell reaches further
SIDE_PX = 2 * HALF_PX
N_ANGLES = 360  # number of directions in which an outline is sampled
BANK_PX = 768  # side length of a texture
TEXTURES_PX = {"fine": 0.9, "coarse": 2.2, "mottle": 3.2, "bend": 9.0}  # standard deviation of the smoothing kernel
FILAMENT_LEVEL = 0.55  # mean microtubule intensity of an untreated cell, the unit of diffuse tubulin
ANGLES = np.arange(N_ANGLES) * (2 * np.pi / N_ANGLES)


@dataclass(frozen=True)
class Light:
    """Fluorescence emitted by a field, margins included; rendering functions add to the arrays in place."""

    sharp: np.ndarray  # (3, height, width) from the focal plane
    soft: np.ndarray  # (3, height, width) from above or below the focal plane


@dataclass(frozen=True)
class Bodies:
    """Geometry of n cells and their nuclei."""

    y: np.ndarray  # (n,) row of the centre, in the field with margins
    x: np.ndarray  # (n,) column of the centre
    top: np.ndarray  # (n,) first row of the window
    left: np.ndarray  # (n,) first column of the window
    outline_px: np.ndarray  # (n, N_ANGLES) radius of the body
    nucleus_px: np.ndarray  # (n, N_ANGLES) radius of the nucleus, or of the disk around its fragments
    edge_px: np.ndarray  # (n, SIDE_PX, SIDE_PX) signed distance to the cell edge, negative inside
    nuclear: np.ndarray  # (n, SIDE_PX, SIDE_PX) 1 inside the nucleus, 0 outside


@lru_cache(maxsize=2)
def texture_bank(seed: int) -> dict[str, np.ndarray]:
    """Smooth random textures (BANK_PX x BANK_PX) with mean 0 and variance 1, one per entry of TEXTURES_PX."""
    rng = np.random.default_rng([seed, 7])
    frequency = np.hypot(fft.fftfreq(BANK_PX)[:, None], fft.rfftfreq(BANK_PX)[None, :])
    bank = {}
    for name, grain_px in TEXTURES_PX.items():
        white = rng.standard_normal((BANK_PX, BANK_PX), dtype=np.float32)
        smooth = fft.irfft2(fft.rfft2(white) * np.exp(-2 * (np.pi * grain_px * frequency) ** 2), s=white.shape)
        bank[name] = ((smooth - smooth.mean()) / smooth.std()).astype(np.float32)
    return bank


def render_bodies(
    cells: pd.DataFrame, rng: np.random.Generator, light: Light, *, y: np.ndarray, x: np.ndarray, seed: int
) -> Bodies:
    """Add nuclei and cell bodies to `light`; `y` and `x` are the cell centres in the field with margins."""
    n = len(cells)
    bank = texture_bank(seed)
    outline = body_outlines(cells, rng)
    nucleus = nucleus_outlines(cells, rng)
    top, left = np.floor(y).astype(int) - HALF_PX, np.floor(x).astype(int) - HALF_PX
    edge = np.empty((n, SIDE_PX, SIDE_PX), np.float32)
    nuclear = np.empty_like(edge)
    overlap = _overlaps(rng, n)
    attached = cells["state"].eq("interphase").to_numpy()
    grid = np.arange(SIDE_PX, dtype=np.float32)
    rows: list[Cell] = list(cells.itertuples(index=False))
    for i, cell in enumerate(rows):
        window = {name: _window(texture, rng) for name, texture in bank.items()}
        offset_y = np.broadcast_to((grid - np.float32(y[i] - top[i]))[:, None], (SIDE_PX, SIDE_PX))
        offset_x = np.broadcast_to((grid - np.float32(x[i] - left[i]))[None, :], (SIDE_PX, SIDE_PX))
        bent_y, bent_x = offset_y + 2.2 * window["bend"], offset_x + 2.2 * _window(bank["bend"], rng)
        radius = np.hypot(bent_y, bent_x)
        direction = (np.arctan2(bent_y, bent_x) * np.float32(N_ANGLES / (2 * np.pi))).astype(np.intp) % N_ANGLES
        neighbours = (
            np.flatnonzero(attached & (np.hypot(y - y[i], x - x[i]) < 110)) if attached[i] else np.array([], int)
        )
        neighbours = neighbours[neighbours != i]
        sides = [
            _distance_past_border(bent_y, bent_x, y[j] - y[i], x[j] - x[i], outline[i], outline[j]) - overlap[i, j]
            for j in neighbours
        ]
        edge[i], contact = _edge(radius, direction, outline[i], sides)
        dna, nuclear[i] = _nucleus(cell, rng, offset_y, offset_x, nucleus[i], window)
        tubulin, actin = _cytoplasm(cell, rng, edge[i], contact, radius, direction, nuclear[i], window)
        rendered = np.stack([dna + 0.02 * tubulin, tubulin, actin])
        _add(light.sharp, (1 - cell.defocus) * rendered, top[i], left[i])
        _add(light.soft, cell.defocus * rendered, top[i], left[i])
    return Bodies(y, x, top, left, outline, nucleus, edge, nuclear)


def body_outlines(cells: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Radius of each cell body by direction, (n, N_ANGLES): an ellipse with random protrusions."""
    n = len(cells)
    radius = cells["cell_radius_px"].to_numpy()[:, None]
    relative = _ellipses(np.ones(n), cells["cell_aspect"].to_numpy(), cells["orientation_rad"].to_numpy())
    corners = np.clip(np.rint(cells["n_protrusions"].to_numpy()), 2, 9).astype(int)
    for i in range(n):
        k = corners[i]
        turn = cells["orientation_rad"].iloc[i] + (0 if k == 2 else rng.uniform(0, 2 * np.pi))
        at = turn + 2 * np.pi * (np.arange(k) + rng.normal(0, 0.16, k)) / k
        height = cells["protrusion"].iloc[i] * rng.gamma(3, 1 / 3, k)
        width = rng.uniform(0.22, 0.5, k)
        chord = np.sqrt(2 - 2 * np.cos(ANGLES[:, None] - at) + 0.003)  # the constant rounds the tip
        relative[i] += (height * np.exp(-chord / width)).sum(axis=1)
    relative += _ripple(rng, n, orders=range(3, 12), size=0.06)
    relative /= np.sqrt((relative**2).mean(axis=1, keepdims=True))
    return np.clip(radius * relative, 5, HALF_PX - 6)


def nucleus_outlines(cells: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Radius of each nucleus by direction, (n, N_ANGLES): a lobed ellipse, indented by an adjacent aggresome."""
    n = len(cells)
    along = cells["orientation_rad"].to_numpy() + rng.normal(0, 0.3, n)
    lobes = 1 + _ripple(rng, n, orders=range(2, 6), size=1.0) * cells["nucleus_lobing"].to_numpy()[:, None]
    towards = np.cos(ANGLES[None, :] - cells["polarity_rad"].to_numpy()[:, None])
    dent = 1 - 0.38 * np.minimum(cells["aggresome"].to_numpy(), 1.2)[:, None] * np.exp(4 * (towards - 1))
    relative = _ellipses(np.ones(n), cells["nucleus_aspect"].to_numpy(), along) * np.maximum(lobes, 0.6) * dent
    relative /= np.sqrt((relative**2).mean(axis=1, keepdims=True))
    return relative * cells["nucleus_radius_px"].to_numpy()[:, None]


def _ellipses(radius: np.ndarray, aspect: np.ndarray, along: np.ndarray) -> np.ndarray:
    a, b = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
    angle = ANGLES[None, :] - along[:, None]
    return a[:, None] * b[:, None] / np.hypot(b[:, None] * np.cos(angle), a[:, None] * np.sin(angle))


def _ripple(rng: np.random.Generator, n: int, *, orders: range, size: float) -> np.ndarray:
    """Smooth random functions of direction, (n, N_ANGLES), standard deviation `size`; amplitude falls as 1 / order."""
    order = np.array(orders)
    height = rng.standard_normal((n, len(order))) / order
    height *= size / np.sqrt(0.5 * (1 / order**2).sum())
    phase = rng.uniform(0, 2 * np.pi, (n, len(order)))
    return (height[:, :, None] * np.cos(order[None, :, None] * ANGLES + phase[:, :, None])).sum(axis=1)


def _overlaps(rng: np.random.Generator, n: int) -> np.ndarray:
    """Overlap (px) of each pair of neighbours at their common border, (n, n), symmetric; 15 % overlap strongly."""
    overlap = np.where(rng.random((n, n)) < 0.15, rng.uniform(6, 25, (n, n)), rng.normal(1.5, 1.5, (n, n)))
    return np.triu(overlap, 1) + np.triu(overlap, 1).T


def _distance_past_border(
    y: np.ndarray, x: np.ndarray, dy: float, dx: float, own: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Signed distance (px) from the border with a neighbour at (dy, dx), negative on the cell's own side."""
    distance = float(np.hypot(dy, dx)) + 1e-6
    own_reach, other_reach = float(own.mean()), float(other.mean())
    border = distance * own_reach / (own_reach + other_reach)
    return y * np.float32(dy / distance) + x * np.float32(dx / distance) - np.float32(border)


def _edge(
    radius: np.ndarray, direction: np.ndarray, outline: np.ndarray, sides: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to the cell edge (negative inside), and proximity to a border with a neighbour (0 to 1)."""
    steepness = 1 / np.hypot(1, np.gradient(np.concatenate([outline[-1:], outline, outline[:1]]))[1:-1]
                             / (outline * 2 * np.pi / N_ANGLES))  # fmt: skip
    edge = (radius - outline.astype(np.float32)[direction]) * steepness.astype(np.float32)[direction]
    contact = np.zeros_like(edge)
    for side in sides:
        if float(side.max()) < -20:
            continue
        contact = np.maximum(contact, np.exp(-((np.minimum(side, 6) + 1.2) ** 2) / 4.5))
        upper, lower = np.maximum(edge, side), np.minimum(edge, side)
        edge = upper + 2 * np.exp(np.maximum(lower - upper, -30) / 2)
    return edge, contact


def _nucleus(
    cell: Cell,
    rng: np.random.Generator,
    y: np.ndarray,
    x: np.ndarray,
    outline: np.ndarray,
    window: dict[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """DNA signal of the nucleus or of its fragments, and the nuclear mask (0 to 1)."""
    bent_y, bent_x = y + 0.6 * window["bend"], x + 0.6 * window["mottle"] * 0.5
    if cell.state in ("interphase", "rounded") and cell.n_fragments == 1:
        radius = np.hypot(bent_y, bent_x)
        direction = (np.arctan2(bent_y, bent_x) * np.float32(N_ANGLES / (2 * np.pi))).astype(np.intp) % N_ANGLES
        depth = outline.astype(np.float32)[direction] - radius
        nuclear = _soft_step(depth / 0.9)
        mass = nuclear * (0.8 + 0.25 * (1 - np.exp(-np.maximum(depth, 0) / 4)))
    else:
        nuclear, mass = _fragmented_nucleus(cell, rng, bent_y, bent_x)
    grain = np.float32(cell.chromatin_grain)
    texture = (1 - grain) * window["fine"] + grain * window["coarse"]
    texture *= np.float32(cell.chromatin_contrast) / np.sqrt((1 - grain) ** 2 + grain**2)
    dna = mass * np.exp(texture)
    if cell.state in ("interphase", "rounded"):
        for _ in range(min(int(rng.poisson(cell.n_nucleoli)), 9)):
            angle, away = rng.uniform(0, 2 * np.pi), 0.68 * cell.nucleus_radius_px * np.sqrt(rng.random())
            size = cell.nucleolus_radius_px * np.exp(rng.normal(0, 0.2))
            _darken(dna, y, x, away * np.sin(angle), away * np.cos(angle), size, cell.nucleolus_depth)
    return cell.dna_brightness * (15.0 / max(cell.nucleus_radius_px, 10)) * dna, nuclear


def _fragmented_nucleus(
    cell: Cell, rng: np.random.Generator, y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mask (0 to 1) and DNA signal of micronuclei, a metaphase plate, a monopolar rosette or apoptotic fragments."""
    fragments = _fragment_table(cell, rng)
    nuclear, mass = np.zeros_like(y), np.zeros_like(y)
    for dy, dx, a, b, along, brightness in fragments:
        reach = int(a + 6)
        row, column = int(HALF_PX + dy), int(HALF_PX + dx)
        box = (slice(max(row - reach, 0), row + reach + 2), slice(max(column - reach, 0), column + reach + 2))
        v, u = y[box] - dy, x[box] - dx
        length = np.hypot((u * np.cos(along) + v * np.sin(along)) / a, (v * np.cos(along) - u * np.sin(along)) / b)
        depth = (1 - length) * b
        inside = _soft_step(depth / 0.8)
        nuclear[box] = np.maximum(nuclear[box], inside)
        mass[box] = np.maximum(mass[box], brightness * inside * (0.75 + 0.3 * np.clip(depth / b, 0, 1)))
    return nuclear, mass


def _fragment_table(cell: Cell, rng: np.random.Generator) -> np.ndarray:
    """One row per fragment: dy, dx, semi-major and semi-minor axis (px), direction (rad), brightness."""
    along, size = cell.orientation_rad, cell.nucleus_radius_px
    if cell.state == "mitotic":
        apart = rng.choice([0.0, 0.0, 5.0, 9.0])
        sides = np.array([-apart, apart]) if apart else np.zeros(1)
        plate = np.stack([sides * np.cos(along), -sides * np.sin(along)], axis=1)
        return np.array([[dy, dx, size * 1.05, size * (0.36 if apart else 0.42), along, 1.0] for dy, dx in plate])
    if cell.state == "monopolar":
        k = int(rng.integers(13, 20))
        angle = 2 * np.pi * (np.arange(k) + rng.normal(0, 0.25, k)) / k
        away = size * rng.uniform(0.55, 0.85, k)
        return np.stack([away * np.sin(angle), away * np.cos(angle), rng.uniform(2.2, 3.6, k), rng.uniform(1.5, 2.2, k),
                         angle + rng.normal(0, 0.4, k), rng.uniform(0.7, 1.15, k)], axis=1)  # fmt: skip
    k = int(cell.n_fragments)
    radius: np.ndarray = np.maximum(size * np.sqrt(rng.dirichlet(np.full(k, 2.5)) * 1.1), 1.8)
    place = np.zeros((k, 2))
    for j in range(1, k):
        beside, towards = int(rng.integers(0, j)), rng.uniform(0, 2 * np.pi)
        away_px = (radius[beside] + radius[j]) * rng.uniform(0.82, 1.12)
        place[j] = place[beside] + away_px * np.array([np.sin(towards), np.cos(towards)])
    place -= (place * radius[:, None] ** 2).sum(axis=0) / (radius**2).sum()
    stretch = np.sqrt(rng.uniform(1, 1.5, k))
    return np.stack([place[:, 0], place[:, 1], radius * stretch, radius / stretch, rng.uniform(0, np.pi, k),
                     rng.uniform(0.75, 1.2, k)], axis=1)  # fmt: skip


def _cytoplasm(
    cell: Cell,
    rng: np.random.Generator,
    edge: np.ndarray,
    contact: np.ndarray,
    radius: np.ndarray,
    direction: np.ndarray,
    nuclear: np.ndarray,
    window: dict[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Tubulin and actin signal outside filaments: diffuse, cortical and at cell junctions."""
    depth = np.maximum(-edge, 0)
    inside = _soft_step(-edge / 0.9)
    flat = inside * (1 - np.exp(-depth / 5))
    dome = np.exp(-((radius / np.float32(0.8 * cell.cell_radius_px)) ** 2))
    mottle = np.maximum(1 + 0.16 * window["mottle"], 0.3)
    tubulin = FILAMENT_LEVEL * cell.tubulin_diffuse * flat * (0.15 + 1.4 * dome) * (1 - 0.12 * nuclear) * mottle
    uneven = np.exp(_ripple(rng, 1, orders=range(1, 9), size=0.8)[0]).astype(np.float32)[direction]
    rim = np.exp(-((depth - 1.5) ** 2) / 3.5) * inside
    actin = cell.actin_diffuse * flat * (0.6 + 0.35 * dome) * (1 - 0.15 * nuclear) * (mottle + 0.1 * window["fine"])
    actin = (
        actin + 0.7 * cell.actin_cortex * rim * uneven * (1 - contact) + 0.5 * cell.actin_junction * contact * inside
    )
    return cell.tubulin_brightness * tubulin, cell.actin_brightness * actin


def _soft_step(depth: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(2 * depth, -20, 20)))


def _darken(dna: np.ndarray, y: np.ndarray, x: np.ndarray, dy: float, dx: float, size_px: float, share: float) -> None:
    """Remove `share` of the signal at a spot, in place."""
    reach = int(3 * size_px + 2)
    row, column = int(HALF_PX + dy), int(HALF_PX + dx)
    box = (slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1))
    distance2 = (y[box] - np.float32(dy)) ** 2 + (x[box] - np.float32(dx)) ** 2
    dna[box] *= 1 - np.float32(share) * np.exp(-((distance2 / np.float32(1.6 * size_px**2)) ** 2))


def _window(texture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row, column = rng.integers(0, BANK_PX - SIDE_PX, 2)
    return texture[row : row + SIDE_PX, column : column + SIDE_PX]


def _add(field: np.ndarray, rendered: np.ndarray, top: int, left: int) -> None:
    """Add a window (3, SIDE_PX, SIDE_PX) to the field in place, clipped at the field's edges."""
    height, width = field.shape[1:]
    y0, x0 = max(0, -top), max(0, -left)
    y1, x1 = min(SIDE_PX, height - top), min(SIDE_PX, width - left)
    field[:, top + y0 : top + y1, left + x0 : left + x1] += rendered[:, y0:y1, x0:x1]
