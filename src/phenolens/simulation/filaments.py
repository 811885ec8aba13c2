"""Render microtubules, mitotic spindles, stress fibres, filopodia and aggregates of simulated cells.

Filaments are persistent random walks with steps of one px, confined by the cell edge; all n filaments of a field
advance together and add signal at every step.
"""

import numpy as np
import pandas as pd

from phenolens.simulation.bodies import N_ANGLES, SIDE_PX, Bodies, Light

MICROTUBULE_LIGHT = 0.19  # signal per px of filament
STRESS_FIBRE_LIGHT = 0.22
FILOPODIUM_LIGHT = 0.28
TUBULIN, ACTIN = 1, 2  # channels


def draw_filaments(cells: pd.DataFrame, rng: np.random.Generator, light: Light, bodies: Bodies) -> None:
    """Add the filaments and aggregates of all cells to `light`."""
    _microtubules(cells, rng, light, bodies)
    _spindles(cells, rng, light, bodies)
    _stress_fibres(cells, rng, light, bodies)
    _filopodia(cells, rng, light, bodies)
    _aggregates(cells, rng, light, bodies)


def _microtubules(cells: pd.DataFrame, rng: np.random.Generator, light: Light, bodies: Bodies) -> None:
    """Microtubule network of interphase cells: perinuclear, radial and bundled filaments."""
    has_network = cells["state"].isin(["interphase", "rounded"]).to_numpy()
    owner = _owners(np.where(has_network, cells["n_microtubules"], 0), rng)
    n = len(owner)
    if n == 0:
        return
    of = {name: cells[name].to_numpy()[owner] for name in (
        "tubulin_polarity", "polarity_rad", "tubulin_ring", "tubulin_bundling", "microtubule_curl",
        "microtubule_length_px", "tubulin_brightness")}  # fmt: skip
    sided = rng.random(n) < of["tubulin_polarity"]
    around = np.where(sided, of["polarity_rad"] + rng.normal(0, 0.55, n), rng.uniform(0, 2 * np.pi, n))
    along = rng.random(n) < of["tubulin_ring"]
    above = rng.random(n) < 0.38  # these start above or below the nucleus, the others beside it
    nucleus = _radius_at(bodies.nucleus_px, owner, around)
    away = np.where(above, nucleus * np.sqrt(rng.random(n)), nucleus + 0.5 + np.abs(rng.normal(0, 3.0, n)))
    turn = np.where(along, np.where(rng.random(n) < 0.5, 1, -1) * rng.normal(1.35, 0.35, n), rng.normal(0, 0.6, n))
    length = of["microtubule_length_px"] * rng.gamma(5, 0.2, n)
    brightness = MICROTUBULE_LIGHT * of["tubulin_brightness"] * rng.gamma(4, 0.25, n)
    leader = _leaders(owner, rng.random(n) < of["tubulin_bundling"], rng)
    bundled = leader != np.arange(n)
    away = np.where(bundled, away[leader] + 3 + rng.normal(0, 0.7, n), away)
    start_y, start_x = away * np.sin(around), away * np.cos(around)
    angle = around + turn
    start_y = np.where(bundled, start_y[leader] + rng.normal(0, 1.3, n), start_y)
    start_x = np.where(bundled, start_x[leader] + rng.normal(0, 1.3, n), start_x)
    angle = np.where(bundled, angle[leader] + rng.normal(0, 0.05, n), angle)
    _trace(light, bodies, rng, channel=TUBULIN, owner=owner, y=start_y, x=start_x, angle=angle, length_px=length,
          curl=of["microtubule_curl"], brightness=brightness * np.where(bundled, 1.3, 1.0), leader=leader,
          along=cells["orientation_rad"].to_numpy()[owner], pull=0.025,
          delay_px=np.where(bundled, rng.uniform(0, 0.5, n), 0) * length,
          defocus=cells["defocus"].to_numpy()[owner], nuclear_share=0.85)  # fmt: skip


def _spindles(cells: pd.DataFrame, rng: np.random.Generator, light: Light, bodies: Bodies) -> None:
    """Spindles of dividing cells: two poles facing the metaphase plate, or one central aster."""
    dividing = cells["state"].isin(["mitotic", "monopolar"]).to_numpy()
    owner = _owners(np.where(dividing, 0.7 * cells["n_microtubules"] + 25, 0), rng)
    n = len(owner)
    if n == 0:
        return
    bipolar = (cells["state"] == "mitotic").to_numpy()[owner]
    across = cells["orientation_rad"].to_numpy()[owner] + np.pi / 2
    side = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    apart = np.where(bipolar, 9.0 * side, 0.0)
    inwards = across + np.where(side > 0, np.pi, 0)
    angle = np.where(bipolar, inwards + rng.normal(0, 0.7, n), rng.uniform(0, 2 * np.pi, n))
    _trace(light, bodies, rng, channel=TUBULIN, owner=owner, y=apart * np.sin(across) + rng.normal(0, 1.7, n),
          x=apart * np.cos(across) + rng.normal(0, 1.7, n), angle=angle, length_px=rng.normal(10, 2.5, n),
          curl=np.full(n, 0.03), brightness=0.3 * cells["tubulin_brightness"].to_numpy()[owner], leader=np.arange(n),
          defocus=cells["defocus"].to_numpy()[owner], nuclear_share=1.0)  # fmt: skip


def _stress_fibres(cells: pd.DataFrame, rng: np.random.Generator, light: Light, bodies: Bodies) -> None:
    owner = _owners(cells["n_stress_fibres"].to_numpy(), rng)
    n = len(owner)
    if n == 0:
        return
    bundle_direction = cells["orientation_rad"].to_numpy() + rng.normal(0, 0.25, len(cells))
    around = rng.uniform(0, 2 * np.pi, n)
    away = _radius_at(bodies.outline_px, owner, around) * 0.92 * np.sqrt(rng.random(n))
    angle = bundle_direction[owner] + rng.normal(0, 0.12, n) + np.pi * rng.integers(0, 2, n)
    length = cells["cell_radius_px"].to_numpy()[owner] * rng.uniform(0.5, 1.5, n)
    brightness = STRESS_FIBRE_LIGHT * cells["actin_brightness"].to_numpy()[owner] * rng.gamma(3, 1 / 3, n)
    _trace(light, bodies, rng, channel=ACTIN, owner=owner, y=away * np.sin(around), x=away * np.cos(around),
          angle=angle, length_px=length, curl=np.full(n, 0.012), brightness=brightness, leader=np.arange(n),
          defocus=cells["defocus"].to_numpy()[owner], nuclear_share=0.8)  # fmt: skip


def _filopodia(cells: pd.DataFrame, rng: np.random.Generator, light: Light, bodies: Bodies) -> None:
    """Filopodia at the cell edge, most of them on protrusions."""
    owner = _owners(cells["n_filopodia"].to_numpy(), rng)
    n = len(owner)
    if n == 0:
        return
    tries = rng.uniform(0, 2 * np.pi, (3, n))
    reach = np.stack([_radius_at(bodies.outline_px, owner, angle) for angle in tries])
    furthest = reach.argmax(axis=0)
    around, away = tries[furthest, np.arange(n)], reach[furthest, np.arange(n)] - 4
    _trace(light, bodies, rng, channel=ACTIN, owner=owner, y=away * np.sin(around), x=away * np.cos(around),
          angle=around + rng.normal(0, 0.25, n), length_px=4 + rng.gamma(2, 2.2, n), curl=np.full(n, 0.02),
          brightness=FILOPODIUM_LIGHT * rng.gamma(3, 1 / 3, n), leader=np.arange(n),
          defocus=cells["defocus"].to_numpy()[owner], nuclear_share=1.0, leaves_body=True)  # fmt: skip


def _aggregates(cells: pd.DataFrame, rng: np.random.Generator, light: Light, bodies: Bodies) -> None:
    """Actin aggregates anywhere in the cell body, and the aggresome beside the nucleus."""
    owner = _owners(cells["n_actin_aggregates"].to_numpy(), rng)
    around = rng.uniform(0, 2 * np.pi, len(owner))
    away = _radius_at(bodies.outline_px, owner, around) * 0.9 * np.sqrt(rng.uniform(0.1, 1, len(owner)))
    size = cells["actin_aggregate_px"].to_numpy()[owner] * rng.gamma(6, 1 / 6, len(owner))
    total = 8 * size**1.5 * cells["actin_brightness"].to_numpy()[owner] * rng.gamma(2, 0.5, len(owner))
    _clumps(light, bodies, rng, cells, channel=ACTIN, owner=owner, around=around, away=away, size=size, total=total)
    with_clump = np.flatnonzero(cells["aggresome"].to_numpy() > 0.05)
    around = cells["polarity_rad"].to_numpy()[with_clump]
    away = _radius_at(bodies.nucleus_px, with_clump, around) + 1.5
    amount = cells["aggresome"].to_numpy()[with_clump]
    for channel, share in ((TUBULIN, 130.0), (ACTIN, 60.0)):
        _clumps(light, bodies, rng, cells, channel=channel, owner=with_clump, around=around, away=away,
                size=np.full(len(with_clump), 3.2), total=share * amount)  # fmt: skip


def _clumps(
    light: Light,
    bodies: Bodies,
    rng: np.random.Generator,
    cells: pd.DataFrame,
    *,
    channel: int,
    owner: np.ndarray,
    around: np.ndarray,
    away: np.ndarray,
    size: np.ndarray,
    total: np.ndarray,
) -> None:
    """Irregular clumps of 120 points each, with standard deviation `size` px and total signal `total`."""
    n_points = 120
    owners = np.repeat(owner, n_points)
    y = np.repeat(away * np.sin(around), n_points) + np.repeat(size, n_points) * rng.standard_normal(len(owners))
    x = np.repeat(away * np.cos(around), n_points) + np.repeat(size, n_points) * rng.standard_normal(len(owners))
    y, x = y + (bodies.y - bodies.top)[owners], x + (bodies.x - bodies.left)[owners]
    defocus = cells["defocus"].to_numpy()[owners]
    _deposit(light, bodies, channel, owners, y, x, np.repeat(total / n_points, n_points), defocus)


def _owners(mean_number: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Index of each filament's cell; the number of filaments in a cell is Poisson."""
    number = rng.poisson(np.maximum(mean_number, 0))
    return np.repeat(np.arange(len(number)), number)


def _leaders(owner: np.ndarray, bundled: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Index of the filament whose path each one follows: itself, or if bundled, one of up to 14 in the same cell."""
    first = np.searchsorted(owner, owner)
    number = np.searchsorted(owner, owner, side="right") - first
    few = np.minimum(number, 14)
    return np.where(
        bundled, first + np.minimum((rng.random(len(owner)) * few).astype(int), few - 1), np.arange(len(owner))
    )


def _radius_at(outline_px: np.ndarray, owner: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Radius of the owners' outlines at the given directions (rad)."""
    index = np.rint(angle * (N_ANGLES / (2 * np.pi))).astype(int) % N_ANGLES
    return outline_px[owner, index]


def _trace(
    light: Light,
    bodies: Bodies,
    rng: np.random.Generator,
    *,
    channel: int,
    owner: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    angle: np.ndarray,
    length_px: np.ndarray,
    curl: np.ndarray,
    brightness: np.ndarray,
    leader: np.ndarray,
    defocus: np.ndarray,
    nuclear_share: float,
    along: np.ndarray | None = None,
    pull: float = 0.0,
    delay_px: np.ndarray | None = None,
    leaves_body: bool = False,
) -> None:
    """Add filaments to a channel as persistent random walks; signal fades towards the end of each path.

    Args:
        y, x: (n,) start, relative to the cell centre.
        curl: (n,) random change of direction, radians per px, correlated over several px.
        leader: (n,) index of the filament whose turns each filament repeats.
        nuclear_share: share of the signal that remains over the nucleus.
        along, pull: axis (rad) towards which filaments turn, and how strongly (per px).
        delay_px: (n,) length at the start of the path without signal.
        leaves_body: whether filaments cross the cell edge; otherwise they turn along it and end beyond it.
    """
    n = len(owner)
    axis = (np.zeros(n) if along is None else along).astype(np.float32)
    delay = np.zeros(n) if delay_px is None else delay_px
    steps = int(min(length_px.max(), 90)) + 1
    y = (y + (bodies.y - bodies.top)[owner]).astype(np.float32)
    x = (x + (bodies.x - bodies.left)[owner]).astype(np.float32)
    angle, turn = angle.astype(np.float32), np.zeros(n, np.float32)
    path_y, path_x, path_light = (np.empty((steps, n), np.float32) for _ in range(3))
    kick = (0.5 * curl).astype(np.float32)
    bending = (0.3 * curl * rng.standard_normal(n)).astype(np.float32)[leader]
    flat_edge, flat_nuclear = bodies.edge_px.reshape(-1), bodies.nuclear.reshape(-1)
    base = owner * (SIDE_PX * SIDE_PX)
    brightness = brightness.astype(np.float32)
    for step in range(steps):
        row = np.clip(y.astype(np.intp), 1, SIDE_PX - 2)
        column = np.clip(x.astype(np.intp), 1, SIDE_PX - 2)
        here = base + row * SIDE_PX + column
        left = brightness * np.clip(1.25 * (1 - step / length_px), 0, 1) * (delay <= step)
        if not leaves_body:
            edge = flat_edge[here]
            left = left * np.clip((0.5 - edge) / 4, 0, 1) * (1 - (1 - nuclear_share) * flat_nuclear[here])
            brightness = brightness * (edge < 3)
            out_y = flat_edge[here + SIDE_PX] - flat_edge[here - SIDE_PX]
            out_x = flat_edge[here + 1] - flat_edge[here - 1]
            dy, dx = np.sin(angle), np.cos(angle)
            outwards = np.maximum(dx * out_x + dy * out_y, 0)
            near = np.clip((edge + 6) / 6, 0, 1)
            angle = angle - 0.16 * near * outwards * np.sign(dx * out_y - dy * out_x)
        path_y[step], path_x[step], path_light[step] = y, x, left
        noise = rng.standard_normal(n, dtype=np.float32)[leader]
        turn = 0.88 * turn + kick * noise
        angle = angle + turn + bending + np.float32(pull) * np.sin(2 * (axis - angle))
        y, x = y + np.sin(angle), x + np.cos(angle)
    visible = path_light.reshape(-1) > 0
    owners, blurs = np.tile(owner, steps)[visible], np.tile(defocus, steps)[visible]
    _deposit(light, bodies, channel, owners, path_y.reshape(-1)[visible], path_x.reshape(-1)[visible],
            path_light.reshape(-1)[visible], blurs)  # fmt: skip


def _deposit(
    light: Light,
    bodies: Bodies,
    channel: int,
    owner: np.ndarray,
    y: np.ndarray,
    x: np.ndarray,
    brightness: np.ndarray,
    defocus: np.ndarray,
) -> None:
    """Add points at (y, x) of their owners' windows: bilinear in focus, in one pixel out of focus."""
    height, width = light.sharp.shape[1:]
    y, x = y + bodies.top[owner], x + bodies.left[owner]
    row, column = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    inside = (row >= 0) & (row < height - 1) & (column >= 0) & (column < width - 1)
    row, column, y, x = row[inside], column[inside], y[inside], x[inside]
    brightness, defocus = brightness[inside], defocus[inside]
    fy, fx = y - row, x - column
    at = row * width + column
    focused = brightness * (1 - defocus)
    place = np.concatenate([at, at + 1, at + width, at + width + 1])
    share = np.concatenate(
        [focused * (1 - fy) * (1 - fx), focused * (1 - fy) * fx, focused * fy * (1 - fx), focused * fy * fx]
    )
    light.sharp[channel] += np.bincount(place, share, minlength=height * width).reshape(height, width)
    light.soft[channel] += np.bincount(at, brightness * defocus, minlength=height * width).reshape(height, width)
