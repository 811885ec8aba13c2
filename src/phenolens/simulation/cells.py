"""Sample the cells of a simulated field and render their fluorescence, before optics and camera.

A cell table has one row per cell; its columns are the ground-truth parameters. Channels: DNA, tubulin, actin.
"""

import numpy as np
import pandas as pd

from phenolens.simulation.bodies import Light, render_bodies
from phenolens.simulation.filaments import draw_filaments
from phenolens.simulation.phenotypes import PER_CELL, SPREAD, UNTREATED, UPPER_LIMIT, Phenotype, interpolate

MARGIN_PX = 40  # cells centred up to this far outside the field are rendered too


def sample_cells(
    rng: np.random.Generator,
    *,
    target: Phenotype,
    strength: float,
    n_expected: float,
    height_px: int,
    width_px: int,
    size_factor: float = 1.0,
) -> pd.DataFrame:
    """Sample the cells of a field, including those centred up to MARGIN_PX outside it.

    Args:
        target: phenotype at full effect.
        strength: effect of the well's treatment, 0 to 1; single cells vary around it.
        n_expected: mean number of untreated cells centred in the field.
        size_factor: multiplies cell and nucleus lengths (growth conditions of the batch).
    """
    well = interpolate(target, strength=strength)
    area_ratio = (height_px + 2 * MARGIN_PX) * (width_px + 2 * MARGIN_PX) / (height_px * width_px)
    n = 1 + int(rng.poisson(max(n_expected * well.n_cells * area_ratio - 1, 0)))
    response = np.clip(strength * np.exp(0.35 * rng.standard_normal(n)), 0, 1.15)
    cells = pd.DataFrame({"response": response, "state": _states(rng, well, n)})
    for name in PER_CELL:
        untreated, full = getattr(UNTREATED, name), getattr(target, name)
        mean = np.maximum(untreated + response * (full - untreated), 0)
        spread = SPREAD[name]
        cells[name] = np.minimum(
            mean * np.exp(spread * rng.standard_normal(n) - spread**2 / 2), UPPER_LIMIT.get(name, np.inf)
        )
    # cell cycle: nucleus, cell body and DNA content grow together
    cycle = rng.beta(1.2, 1.6, n)
    cells["nucleus_radius_px"] *= size_factor * (0.93 + 0.16 * cycle)
    cells["cell_radius_px"] *= size_factor * (0.92 + 0.18 * cycle)
    cells["nucleus_aspect"] = np.maximum(cells["nucleus_aspect"], 1.0)
    cells["cell_aspect"] = np.maximum(cells["cell_aspect"], 1.0)
    cells["orientation_rad"] = rng.uniform(0, np.pi, n)
    cells["polarity_rad"] = rng.uniform(0, 2 * np.pi, n)
    cells["n_fragments"] = np.where(
        rng.random(n) < well.fragmented_share, 2 + rng.poisson(max(well.n_fragments - 2, 0), n), 1
    )
    for channel, spread in (("dna", 0.2), ("tubulin", 0.28), ("actin", 0.28)):
        cells[f"{channel}_brightness"] = np.exp(spread * rng.standard_normal(n))
    cells["dna_brightness"] *= 0.8 + 0.4 * cycle
    cells = _apply_states(cells, rng)
    cells["n_fragments"] = np.minimum(cells["n_fragments"], 9)
    # the cell body contains the nucleus
    cells["cell_radius_px"] = np.maximum(cells["cell_radius_px"], 1.22 * cells["nucleus_radius_px"])
    cells["nucleus_area_px"] = np.pi * cells["nucleus_radius_px"] ** 2
    cells["nucleus_eccentricity"] = np.sqrt(1 - 1 / cells["nucleus_aspect"] ** 2)
    y, x = _place(
        rng,
        cells["cell_radius_px"].to_numpy(),
        height_px=height_px + 2 * MARGIN_PX,
        width_px=width_px + 2 * MARGIN_PX,
        clustering=well.clustering,
    )
    cells.insert(0, "y_px", np.round(y - MARGIN_PX, 3))
    cells.insert(1, "x_px", np.round(x - MARGIN_PX, 3))
    return cells


def _states(rng: np.random.Generator, well: Phenotype, n: int) -> np.ndarray:
    """State of each of n cells, sampled from the well's shares; the remainder is in interphase."""
    shares = np.array([well.rounded_share, well.mitotic_share, well.monopolar_share, well.dying_share])
    edges = np.cumsum(shares / max(1.0, shares.sum()))
    names = np.array(["rounded", "mitotic", "monopolar", "dying", "interphase"])
    return names[np.searchsorted(edges, rng.random(n), side="right")]


def _apply_states(cells: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Adjust size, shape and brightness of rounded, dividing and dying cells."""
    cells = cells.copy()
    n = len(cells)
    rounded = (cells["state"] == "rounded").to_numpy()
    dividing = cells["state"].isin(["mitotic", "monopolar"]).to_numpy()
    dying = (cells["state"] == "dying").to_numpy()
    detached = rounded | dividing | dying
    jitter = np.exp(0.1 * rng.standard_normal(n))
    radius = np.select([rounded, dividing, dying], [0.72 * cells["cell_radius_px"], 20.0 * jitter, 11.0 * jitter])
    cells["cell_radius_px"] = np.where(detached, radius, cells["cell_radius_px"])
    cells["nucleus_radius_px"] *= np.select([rounded, dividing, dying], [0.88, 0.72, 0.5], default=1.0)
    cells["cell_aspect"] = np.where(detached, 1 + 0.4 * (cells["cell_aspect"] - 1), cells["cell_aspect"])
    cells["protrusion"] *= np.where(detached, 0.15, 1.0)
    cells["n_filopodia"] *= np.where(detached, 0.6, 1.0)
    cells["n_stress_fibres"] *= np.where(detached, 0.1, 1.0)
    cells["microtubule_length_px"] *= np.where(detached, 0.55, 1.0)
    cells["defocus"] = np.where(detached, np.clip(rng.normal(0.6, 0.18, n), 0.15, 0.95), cells["defocus"])
    cells["tubulin_diffuse"] *= np.where(dividing, 2.0, 1.0)
    cells["actin_diffuse"] *= np.where(dividing, 1.5, 1.0)
    cells["n_fragments"] = np.select([dividing, dying], [1, 3 + rng.poisson(1.5, n)], default=cells["n_fragments"])
    for channel, gains in (("dna", (1.25, 1.8, 2.0)), ("tubulin", (1.4, 1.15, 1.1)), ("actin", (1.4, 1.3, 1.4))):
        cells[f"{channel}_brightness"] *= np.select([rounded, dividing, dying], gains, default=1.0)
    return cells


def _place(
    rng: np.random.Generator, radius_px: np.ndarray, *, height_px: int, width_px: int, clustering: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cell centres (y, x) with limited overlap; higher `clustering` places more cells in contact.

    Each cell takes the best of 32 random positions, given the cells placed before it.
    """
    n = len(radius_px)
    placed = np.empty((n, 2))
    squeeze = rng.uniform(0.55, 0.95, n)  # minimum distance, relative to the sum of radii
    for k in range(n):
        candidates = rng.random((32, 2)) * (height_px, width_px)
        score = 0.4 * rng.gumbel(size=32)
        if k:
            reach = squeeze[k] * (radius_px[:k] + radius_px[k])
            distance = np.hypot(*(candidates[:, None, :] - placed[None, :k, :]).transpose(2, 0, 1)) / reach
            crowding = (np.maximum(0, 0.9 - distance) ** 2).sum(axis=1)
            contact = np.exp(-(((distance - 1.0) / 0.2) ** 2)).max(axis=1)
            score += clustering * contact - 60 * crowding
        placed[k] = candidates[np.argmax(score)]
    return placed[:, 0], placed[:, 1]


def draw_cells(cells: pd.DataFrame, rng: np.random.Generator, *, height_px: int, width_px: int, seed: int) -> Light:
    """Render the cells of `sample_cells`; `seed` selects the textures that all fields of a screen share."""
    shape = (3, height_px + 2 * MARGIN_PX, width_px + 2 * MARGIN_PX)
    light = Light(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    y, x = cells["y_px"].to_numpy() + MARGIN_PX, cells["x_px"].to_numpy() + MARGIN_PX
    bodies = render_bodies(cells, rng, light, y=y, x=x, seed=seed)
    draw_filaments(cells, rng, light, bodies)
    return light
