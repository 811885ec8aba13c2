"""Design of a simulated screen: batches, plates, wells, compounds and doses, in BBBC021's layout.

The SimulateConfig determines everything here.
"""

import datetime
import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
import pandas as pd

from phenolens.core.bounds import Bounded, Bounds, Count, Seed, Share
from phenolens.core.errors import InputError
from phenolens.screens.bbbc021 import POSITIVE_CONTROL_WELLS
from phenolens.simulation.phenotypes import MECHANISMS, UNTREATED, Phenotype, dose_strength, with_compound_variation

WELLS = tuple(f"{row}{column:02d}" for row in "BCDEFG" for column in range(2, 12))
CONTROL_WELLS = ("B02", "C02", "D02", "E11", "F11", "G11")
POSITIVE_CONTROL = ("taxol", 0.3, "Microtubule stabilizers")
CHANNELS = {"DAPI": "w1", "Tubulin": "w2", "Actin": "w4"}  # in the order of the image table
CONCENTRATIONS_UM = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FIRST_DAY = datetime.date(2007, 6, 15)
MAX_BATCHES, MAX_PLATES_PER_BATCH = 70, 40  # limited by the five digits of a plate name
FieldPx = Annotated[int, Bounds(ge=96, le=8192)]


@dataclass(frozen=True)
class SimulateConfig(Bounded):
    """Settings of a simulated screen; the defaults are those of the demo, about 3,700 cells that can be cropped."""

    seed: Seed = 0  # random seed; the same seed and settings give the same bytes
    # groups of plates imaged together (weeks); compounds are distributed over them
    batches: Annotated[int, Bounds(ge=1, le=MAX_BATCHES)] = 2
    replicates: Annotated[int, Bounds(ge=1, le=MAX_PLATES_PER_BATCH)] = 2  # plates per layout within its batch
    # number of mechanisms of action, 1 to 12, in alphabetical order
    mechanisms: Annotated[int, Bounds(ge=1, le=len(MECHANISMS))] = 12
    # compounds per mechanism; with at least as many as batches, every batch has every mechanism
    compounds: Annotated[int, Bounds(ge=1, le=100)] = 3
    doses: Annotated[int, Bounds(ge=1, le=8)] = 3  # concentrations per compound, half a decade apart
    active_doses: Count = 2  # number of highest doses, labelled with the mechanism; lower doses have a weak effect
    positive_control: bool = False  # 0.3 micromolar taxol in six wells of every plate, as in BBBC021
    sites: Annotated[int, Bounds(ge=1, le=99)] = 1  # fields of view per well
    field_width_px: FieldPx = 512  # width of a field, pixels
    field_height_px: FieldPx = 464  # height of a field, pixels
    # mean number of untreated cells per field; mechanisms change it
    cells: Annotated[float, Bounds(ge=1, le=10_000)] = 21.0
    effect: Share = 1.0  # effect of treatments, 0 none to 1 the full phenotype of the mechanism
    # variation between compounds of a mechanism, standard deviation of log parameters
    compound_variation: Annotated[float, Bounds(ge=0, le=0.5)] = 0.15
    least_efficacy: Share = 0.5  # efficacy of compounds at high doses is uniform from this value to 1
    # size of batch and plate effects on brightness, focus, background and growth; 0 none
    batch_effect: Annotated[float, Bounds(ge=0, le=3)] = 1.0
    # uneven illumination: share of brightness lost from centre to corner
    unevenness: Annotated[float, Bounds(ge=0, le=0.8)] = 0.3
    noise: Annotated[float, Bounds(ge=0, le=10)] = 1.0  # camera noise, relative to BBBC021

    def __post_init__(self) -> None:
        """Check the bounds, and that doses, cells and plates fit."""
        super().__post_init__()
        if self.active_doses > self.doses:
            raise InputError(f"--active-doses {self.active_doses}: expected at most --doses, {self.doses}")
        most_cells = self.field_width_px * self.field_height_px / 600
        if self.cells > most_cells:
            raise InputError(
                f"--cells {self.cells:g}: they do not fit into a field of {self.field_width_px} x "
                f"{self.field_height_px} px; expected at most {most_cells:.0f}"
            )
        batches = [(m + k) % self.batches for m in range(self.mechanisms) for k in range(self.compounds)]
        layouts = math.ceil(int(np.bincount(batches).max()) / _compounds_per_plate(self))
        if layouts * self.replicates > MAX_PLATES_PER_BATCH:
            raise InputError(
                f"{layouts * self.replicates} plates per batch: expected at most {MAX_PLATES_PER_BATCH}; use more "
                "--batches, or fewer --compounds, --doses or --replicates"
            )


@dataclass(frozen=True)
class Compound:
    """A simulated compound: its mechanism, its variant of the phenotype and its doses."""

    name: str
    mechanism: str
    batch: int
    target: Phenotype
    doses_um: tuple[float, ...]  # highest first
    half_effect_um: float
    efficacy: float  # share of the full effect at a saturating dose


def compounds(config: SimulateConfig) -> list[Compound]:
    """All compounds, by mechanism; the compounds of a mechanism are distributed over the batches."""
    simulated = []
    for m, mechanism in enumerate(sorted(MECHANISMS)[: config.mechanisms]):
        for k in range(config.compounds):
            name = f"{mechanism.lower().replace(' ', '-')}-{k + 1}"
            rng = random_for(config.seed, "compound", name)
            target = with_compound_variation(MECHANISMS[mechanism], rng, size=config.compound_variation)
            top = int(rng.integers(config.doses - 1, len(CONCENTRATIONS_UM)))
            doses_um = CONCENTRATIONS_UM[top::-1][: config.doses]
            # half effect is half a dose step below the lowest active dose, varied by potency
            half_effect_um = doses_um[config.active_doses - 1] / (10**0.25 * math.exp(0.15 * rng.standard_normal()))
            efficacy = float(rng.uniform(config.least_efficacy, 1))
            batch = (m + k) % config.batches + 1
            simulated.append(Compound(name, mechanism, batch, target, doses_um, half_effect_um, efficacy))
    return simulated


def labels(config: SimulateConfig) -> pd.DataFrame:
    """Labels of active treatments and DMSO: columns compound, concentration, moa."""
    rows = [
        (compound.name, dose, compound.mechanism)
        for compound in compounds(config)
        for dose in compound.doses_um[: config.active_doses]
    ]
    rows += [POSITIVE_CONTROL] if config.positive_control else []
    return pd.DataFrame([*rows, ("DMSO", 0.0, "DMSO")], columns=["compound", "concentration", "moa"])


def fields(config: SimulateConfig) -> pd.DataFrame:
    """All fields of view, one per row, ordered by plate, well and site.

    Weak doses have a mechanism too; DMSO's is empty. `strength` is the treatment's effect, 0 to 1.
    """
    rows = []
    wells = _treatment_wells(config)
    per_plate = _compounds_per_plate(config)
    all_compounds = compounds(config)
    for batch in range(1, config.batches + 1):
        own = [compound for compound in all_compounds if compound.batch == batch]
        layouts = [own[start : start + per_plate] for start in range(0, len(own), per_plate)]
        image_number = 0
        for index in range(len(layouts) * config.replicates):
            layout, replicate = layouts[index // config.replicates], index % config.replicates + 1
            plate = f"Week{batch}_{20000 + 1000 * batch + 101 + 20 * index}"
            content = _plate_content(config, layout, wells)
            for well in sorted(content):
                for site in range(1, config.sites + 1):
                    image_number += 1
                    table_number = 0 if batch == 10 else batch  # as in BBBC021
                    rows.append((str(batch), plate, replicate, well, site, table_number, image_number, *content[well]))
    columns = ["batch", "plate", "replicate", "well", "site", "table_number", "image_number", "compound",
               "concentration_um", "mechanism", "active", "strength"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


@lru_cache(maxsize=4)
def targets(config: SimulateConfig) -> dict[str, Phenotype]:
    """Phenotype at full effect of each compound, DMSO and the positive control."""
    simulated = {compound.name: compound.target for compound in compounds(config)}
    return {**simulated, "DMSO": UNTREATED, POSITIVE_CONTROL[0]: MECHANISMS[POSITIVE_CONTROL[2]]}


def file_name(config: SimulateConfig, plate: str, well: str, site: int, channel: str) -> str:
    """File name of an image in BBBC021's format, such as Week1_150607_B02_s1_w1<identifier>.tif."""
    week = plate.partition("_")[0]
    day = FIRST_DAY + datetime.timedelta(days=7 * (int(week.removeprefix("Week")) - 1))
    digest = hashlib.sha256(f"{config.seed}/{plate}/{well}/{site}/{channel}".encode()).hexdigest().upper()
    parts = (digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32])
    return f"{week}_{day:%d%m%y}_{well}_s{site}_{CHANNELS[channel]}{'-'.join(parts)}.tif"


def random_for(seed: int, *names: str | int) -> np.random.Generator:
    """Random generator for a named object, independent of all others and of the order of use."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _treatment_wells(config: SimulateConfig) -> list[str]:
    reserved = CONTROL_WELLS + (POSITIVE_CONTROL_WELLS if config.positive_control else ())
    return [well for well in WELLS if well not in reserved]


def _compounds_per_plate(config: SimulateConfig) -> int:
    return len(_treatment_wells(config)) // config.doses


def _plate_content(
    config: SimulateConfig, layout: list[Compound], wells: list[str]
) -> dict[str, tuple[str, float, str, bool, float]]:
    """Map wells to (compound, concentration, mechanism, active, strength); each compound's highest dose comes first."""
    content: dict[str, tuple[str, float, str, bool, float]] = {
        well: ("DMSO", 0.0, "", False, 0.0) for well in CONTROL_WELLS
    }
    if config.positive_control:
        name, dose, mechanism = POSITIVE_CONTROL
        content |= {well: (name, dose, mechanism, True, config.effect) for well in POSITIVE_CONTROL_WELLS}
    treatments = [(compound, k) for compound in layout for k in range(config.doses)]
    for well, (compound, k) in zip(wells, treatments, strict=False):  # remaining wells stay empty
        dose = compound.doses_um[k]
        strength = config.effect * compound.efficacy * dose_strength(dose, half_effect_um=compound.half_effect_um)
        content[well] = (compound.name, dose, compound.mechanism, k < config.active_doses, strength)
    return content
