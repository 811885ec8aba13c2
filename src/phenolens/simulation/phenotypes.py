"""Phenotypes of the twelve mechanisms of action in the simulated screen, their dose response, and single cells.

A Phenotype holds population means. A mechanism is its phenotype at full effect; a treatment interpolates between
untreated cells and that phenotype. A cell table has one row per cell; its columns are the ground-truth parameters.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd

MARGIN_PX = 40  # cells centred up to this far outside the field are sampled and rendered too


@dataclass(frozen=True)
class Phenotype:
    """Population means; the defaults describe untreated MCF-7-like cells.

    Shares refer to all cells of a well; the other values are means over interphase cells.
    """

    n_cells: float = 1.0  # cells per field, relative to untreated
    clustering: float = 1.8  # attraction between cells: 0 scattered, 3 tight islands
    mitotic_share: float = 0.035  # rounded cells with a metaphase plate or two anaphase plates
    monopolar_share: float = 0.0  # rounded cells with a chromosome rosette around one spindle pole
    dying_share: float = 0.015  # shrunken cells with fragmented, bright chromatin
    fragmented_share: float = 0.015  # interphase cells with a fragmented nucleus
    rounded_share: float = 0.02  # interphase cells detached from the substrate
    n_fragments: float = 2.2  # fragments of a fragmented nucleus
    cell_radius_px: float = 37.0  # radius of a disk with the cell body's area
    cell_aspect: float = 1.38  # length over width of the cell body
    n_protrusions: float = 4.6  # protrusions of the outline
    protrusion: float = 0.55  # height of the protrusions, relative to the radius
    nucleus_radius_px: float = 16.3  # radius of a disk with the nucleus' area
    nucleus_aspect: float = 1.27  # length over width of the nucleus
    nucleus_lobing: float = 0.025  # depth of nuclear lobes, relative to the radius
    chromatin_contrast: float = 0.17  # standard deviation of the chromatin texture's log intensity
    chromatin_grain: float = 0.3  # chromatin texture: 0 fine (about 1 px), 1 coarse (about 3 px)
    n_nucleoli: float = 3.5  # nucleoli per nucleus, dark in the DNA channel
    nucleolus_radius_px: float = 2.0  # radius of a nucleolus
    nucleolus_depth: float = 0.38  # share of the DNA signal missing in a nucleolus
    n_microtubules: float = 320.0  # microtubules per cell
    microtubule_length_px: float = 44.0  # mean length of a microtubule
    microtubule_curl: float = 0.03  # change of direction, radians per px
    tubulin_bundling: float = 0.04  # share of microtubules in bundles
    tubulin_diffuse: float = 0.5  # tubulin outside filaments, relative to an untreated cell's microtubules
    tubulin_polarity: float = 0.15  # 0 microtubules all around the nucleus, 1 all on one side
    tubulin_ring: float = 0.6  # share of microtubules that start tangential to the nucleus, not radial
    actin_cortex: float = 0.6  # cortical actin along free cell edges
    actin_junction: float = 1.0  # actin at junctions with neighbours
    n_stress_fibres: float = 16.0  # stress fibres per cell
    actin_diffuse: float = 0.45  # diffuse actin in the cell body
    n_actin_aggregates: float = 1.2  # actin aggregates per cell
    actin_aggregate_px: float = 1.5  # size of an aggregate
    n_filopodia: float = 9.0  # filopodia per cell
    aggresome: float = 0.0  # signal of the aggresome beside the nucleus, 0 absent, 1 full
    defocus: float = 0.12  # share of a cell's signal that is out of focus


UNTREATED = Phenotype()

MECHANISMS: dict[str, Phenotype] = {
    "Actin disruptors": Phenotype(
        n_cells=0.75, cell_radius_px=25.6, n_protrusions=5.5, protrusion=1.3, n_stress_fibres=0, actin_cortex=0.15,
        actin_junction=0.21, actin_diffuse=0.17, n_actin_aggregates=14, actin_aggregate_px=2.3, n_filopodia=1,
        fragmented_share=0.3, n_fragments=2, rounded_share=0.15, tubulin_ring=0.8, microtubule_length_px=35.9,
    ),
    "Aurora kinase inhibitors": Phenotype(
        n_cells=0.5, cell_radius_px=54.9, nucleus_radius_px=25.1, nucleus_lobing=0.11, chromatin_contrast=0.26,
        chromatin_grain=0.6, n_nucleoli=6, fragmented_share=0.2, n_fragments=3, n_microtubules=500,
        mitotic_share=0.01, microtubule_length_px=58.1, n_stress_fibres=16, clustering=0.4, protrusion=0.3,
    ),
    "Cholesterol-lowering": Phenotype(
        n_cells=0.65, cell_radius_px=26.2, cell_aspect=2.6, n_protrusions=2, protrusion=1.15, nucleus_radius_px=13.7,
        nucleus_aspect=1.45, tubulin_polarity=0.85, clustering=0.1, n_stress_fibres=4, actin_cortex=0.75,
        n_filopodia=3, microtubule_curl=0.018, rounded_share=0.06,
    ),
    "DNA damage": Phenotype(
        n_cells=0.5, cell_radius_px=48.8, nucleus_radius_px=20.9, nucleus_aspect=1.35, chromatin_contrast=0.12,
        n_nucleoli=2, nucleolus_radius_px=3, n_stress_fibres=30, clustering=0.3, mitotic_share=0.0, protrusion=0.6,
        microtubule_length_px=58.1, n_microtubules=375.7, actin_diffuse=0.3,
    ),
    "DNA replication": Phenotype(
        n_cells=0.65, cell_radius_px=41.5, nucleus_radius_px=19.8, nucleus_aspect=1.08, chromatin_contrast=0.07,
        chromatin_grain=0.0, n_nucleoli=2.5, nucleolus_radius_px=4.6, nucleolus_depth=0.62, mitotic_share=0.0,
        tubulin_ring=0.75, n_stress_fibres=6,
    ),
    "Eg5 inhibitors": Phenotype(
        n_cells=0.8, monopolar_share=0.62, mitotic_share=0.02, dying_share=0.08, fragmented_share=0.12, defocus=0.2,
        rounded_share=0.06,
    ),
    "Epithelial": Phenotype(
        n_cells=1.35, clustering=4.5, cell_radius_px=30.5, cell_aspect=1.12, n_protrusions=5, protrusion=0.12,
        nucleus_radius_px=14.6, nucleus_aspect=1.12, actin_junction=3.64, actin_cortex=1.3, n_stress_fibres=1,
        actin_diffuse=0.26, n_filopodia=1, microtubule_length_px=29.5,
    ),
    "Kinase inhibitors": Phenotype(
        n_cells=1.15, cell_radius_px=40.3, cell_aspect=1.1, n_protrusions=3, protrusion=0.14, n_stress_fibres=0,
        actin_cortex=0.15, actin_junction=0.28, actin_diffuse=0.75, n_filopodia=0, tubulin_diffuse=1.2,
        n_microtubules=210, microtubule_curl=0.015, tubulin_ring=0.45, defocus=0.22,
    ),
    "Microtubule destabilizers": Phenotype(
        n_cells=0.7, cell_radius_px=30.5, protrusion=0.22, tubulin_diffuse=2.0, n_microtubules=17.7,
        microtubule_length_px=12.7, fragmented_share=0.45, n_fragments=3.2, mitotic_share=0.14, rounded_share=0.14,
        dying_share=0.06, n_stress_fibres=20, actin_cortex=0.9, chromatin_contrast=0.22,
    ),
    "Microtubule stabilizers": Phenotype(
        n_cells=0.65, cell_radius_px=33, protrusion=0.3, tubulin_bundling=0.85, tubulin_ring=0.8, tubulin_diffuse=0.12,
        n_microtubules=310, microtubule_length_px=55, microtubule_curl=0.02, fragmented_share=0.75, n_fragments=5.5,
        mitotic_share=0.12, rounded_share=0.1, dying_share=0.05, clustering=0.6, actin_cortex=0.8,
    ),
    "Protein degradation": Phenotype(
        n_cells=0.65, cell_radius_px=26.2, cell_aspect=1.15, protrusion=0.2, rounded_share=0.3, dying_share=0.12,
        nucleus_radius_px=13.5, nucleus_lobing=0.1, chromatin_contrast=0.26, chromatin_grain=0.8, aggresome=1.0,
        n_microtubules=176.8, microtubule_length_px=25.3, tubulin_polarity=0.7, n_actin_aggregates=4, n_filopodia=3,
    ),
    "Protein synthesis": Phenotype(
        n_cells=0.85, cell_radius_px=29.9, nucleus_radius_px=14.1, chromatin_contrast=0.06, chromatin_grain=0.1,
        n_nucleoli=1.2, nucleolus_radius_px=1.2, nucleolus_depth=0.12, n_microtubules=121.5, tubulin_diffuse=0.45,
        microtubule_curl=0.054, mitotic_share=0.005, n_stress_fibres=3, protrusion=0.3, defocus=0.2,
    ),
}  # fmt: skip

# Cell-to-cell variation: standard deviation of the logarithm of each parameter.
SPREAD: dict[str, float] = {
    "cell_radius_px": 0.15,
    "cell_aspect": 0.14,
    "n_protrusions": 0.25,
    "protrusion": 0.35,
    "nucleus_radius_px": 0.09,
    "nucleus_aspect": 0.1,
    "nucleus_lobing": 0.5,
    "chromatin_contrast": 0.22,
    "chromatin_grain": 0.35,
    "n_nucleoli": 0.35,
    "nucleolus_radius_px": 0.2,
    "nucleolus_depth": 0.25,
    "n_microtubules": 0.2,
    "microtubule_length_px": 0.15,
    "microtubule_curl": 0.25,
    "tubulin_bundling": 0.3,
    "tubulin_diffuse": 0.25,
    "tubulin_polarity": 0.6,
    "tubulin_ring": 0.25,
    "actin_cortex": 0.35,
    "actin_junction": 0.3,
    "n_stress_fibres": 0.5,
    "actin_diffuse": 0.25,
    "n_actin_aggregates": 0.4,
    "actin_aggregate_px": 0.15,
    "n_filopodia": 0.4,
    "aggresome": 0.3,
    "defocus": 0.7,
}
UPPER_LIMIT = {
    "chromatin_grain": 1.0,
    "nucleolus_depth": 0.85,
    "tubulin_bundling": 1.0,
    "tubulin_polarity": 1.0,
    "tubulin_ring": 1.0,
    "defocus": 0.9,
    "cell_radius_px": 60.0,
    "cell_aspect": 3.5,
    "nucleus_radius_px": 30.0,
    "nucleus_lobing": 0.25,
    "protrusion": 1.6,
    "chromatin_contrast": 0.5,
}


def dose_strength(concentration_um: float, *, half_effect_um: float, steepness: float = 2.0) -> float:
    """Share of the full effect at a concentration, 0 to 1 (Hill equation)."""
    if concentration_um == 0:
        return 0.0
    return float(1 / (1 + (half_effect_um / concentration_um) ** steepness))


def interpolate(target: Phenotype, *, strength: float) -> Phenotype:
    """Interpolate linearly from untreated (`strength` 0) to `target` (`strength` 1)."""
    means = {
        field.name: (1 - strength) * getattr(UNTREATED, field.name) + strength * getattr(target, field.name)
        for field in dataclasses.fields(Phenotype)
    }
    return Phenotype(**means)


def with_compound_variation(target: Phenotype, rng: np.random.Generator, *, size: float) -> Phenotype:
    """Vary a mechanism's phenotype for one compound: every mean is multiplied by a log-normal factor.

    `size` is the standard deviation of the factors' logarithms. Shares stay at most 1, others below UPPER_LIMIT.
    """
    factors = np.exp(size * rng.standard_normal(len(dataclasses.fields(Phenotype))))
    means = {
        field.name: getattr(target, field.name) * factor
        for field, factor in zip(dataclasses.fields(Phenotype), factors.tolist(), strict=True)
    }
    shares = {name: min(1.0, value) for name, value in means.items() if name.endswith("_share")}
    limited = {name: min(UPPER_LIMIT[name], means[name]) for name in UPPER_LIMIT}
    return Phenotype(**{**means, **shares, **limited})


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
    for name, spread in SPREAD.items():
        untreated, full = getattr(UNTREATED, name), getattr(target, name)
        mean = np.maximum(untreated + response * (full - untreated), 0)
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
