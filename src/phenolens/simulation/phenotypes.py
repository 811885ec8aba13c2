"""Phenotypes of the twelve mechanisms of action in the simulated screen, and their dose response.

A Phenotype holds population means. A mechanism is its phenotype at full effect; a treatment interpolates between
untreated cells and that phenotype.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np


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
PER_CELL = tuple(SPREAD)  # parameters sampled for every cell
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
