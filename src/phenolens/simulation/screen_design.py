"""Which well of a simulated screen holds what: batches, plates, wells, compounds and doses, in BBBC021's layout.

A table, a row a field of view; everything in it follows from the SimulateConfig.
"""

import datetime
import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from phenolens.core.errors import InputError
from phenolens.simulation.phenotypes import MECHANISMS, UNTREATED, Phenotype, dose_strength, with_personal_offset

WELLS = tuple(f"{row}{column:02d}" for row in "BCDEFG" for column in range(2, 12))
CONTROL_WELLS = ("B02", "C02", "D02", "E11", "F11", "G11")
POSITIVE_CONTROL_WELLS = ("E02", "F02", "G02", "B11", "C11", "D11")
POSITIVE_CONTROL = ("taxol", 0.3, "Microtubule stabilizers")
CHANNELS = {"DAPI": "w1", "Tubulin": "w2", "Actin": "w4"}  # in the order of the image table
CONCENTRATIONS_UM = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FIRST_DAY = datetime.date(2007, 6, 15)
MAX_BATCHES, MAX_PLATES_A_BATCH = 70, 40  # plate names have five digits


@dataclass(frozen=True)
class SimulateConfig:
    """A simulated screen; the defaults are the demo's, about 3,700 cells that can be cropped."""

    seed: int = 0  # chooses everything random; the same seed and settings give the same bytes
    batches: int = 2  # groups of plates imaged together (weeks); compounds are dealt out over them
    replicates: int = 2  # plates of each layout within its batch
    mechanisms: int = 12  # mechanisms of action, the first of them in alphabetical order, 1 to 12
    compounds: int = 3  # compounds a mechanism; with as many as batches or more, each mechanism is in every batch
    doses: int = 3  # concentrations a compound, half a decade apart
    active_doses: int = 2  # the upper ones, which take effect and are labelled with the mechanism; the rest is weak
    positive_control: bool = False  # taxol at 0.3 micromolar in six wells of every plate, as in BBBC021
    sites: int = 1  # fields of view a well
    field_width_px: int = 512  # width of a field, pixels
    field_height_px: int = 464  # height of a field, pixels
    cells: float = 21.0  # untreated cells a field, on average; mechanisms have more or fewer
    effect: float = 1.0  # how far treated cells go towards their mechanism, 0 nothing to 1 all the way
    compound_variation: float = 0.15  # how compounds of one mechanism differ, standard deviation of log parameters
    least_efficacy: float = 0.5  # compounds reach between this and 1 of their mechanism's full effect at high doses
    batch_effect: float = 1.0  # brightness, focus, background and growth of batches and plates; 0 none, 1 as drawn
    unevenness: float = 0.3  # uneven illumination: brightness lost from centre to corner, share
    noise: float = 1.0  # camera noise, relative to that of BBBC021


@dataclass(frozen=True)
class Compound:
    """A compound as it was made up: its mechanism, its own way of showing it, and its doses in micromolar."""

    name: str
    mechanism: str
    batch: int
    target: Phenotype
    doses_um: tuple[float, ...]  # highest first
    half_effect_um: float
    efficacy: float  # share of the mechanism's full effect at saturating dose


def check_config(config: SimulateConfig) -> None:
    """InputError naming the first setting that cannot be simulated."""
    limits: dict[str, tuple[float, float]] = {
        "seed": (0, 2**63 - 1),
        "batches": (1, MAX_BATCHES),
        "replicates": (1, MAX_PLATES_A_BATCH),
        "mechanisms": (1, len(MECHANISMS)),
        "compounds": (1, 100),
        "doses": (1, 8),
        "active_doses": (1, config.doses),
        "sites": (1, 99),
        "field_width_px": (96, 8192),
        "field_height_px": (96, 8192),
        "cells": (1, 10_000),
        "effect": (0, 1),
        "compound_variation": (0, 0.5),
        "least_efficacy": (0, 1),
        "batch_effect": (0, 3),
        "unevenness": (0, 0.8),
        "noise": (0, 10),
    }
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"simulated screen: {name} is {value}; expected {low:g} to {high:g}. Nothing was written.")
    room = config.field_width_px * config.field_height_px / 600
    if config.cells > room:
        raise InputError(
            f"simulated screen: {config.cells:g} cells do not fit into a field of {config.field_width_px} x "
            f"{config.field_height_px} px; expected at most {room:.0f}. Nothing was written."
        )
    plates = math.ceil(_most_compounds_a_batch(config) / _compounds_a_plate(config)) * config.replicates
    if plates > MAX_PLATES_A_BATCH:
        raise InputError(
            f"simulated screen: {plates} plates a batch; expected at most {MAX_PLATES_A_BATCH}. "
            "Use more batches, or fewer compounds, doses or replicates. Nothing was written."
        )


def compounds(config: SimulateConfig) -> list[Compound]:
    """The made-up compounds, mechanism by mechanism; those of one mechanism are dealt out over the batches."""
    made = []
    for m, mechanism in enumerate(sorted(MECHANISMS)[: config.mechanisms]):
        for k in range(config.compounds):
            name = f"{mechanism.lower().replace(' ', '-')}-{k + 1}"
            rng = random_for(config.seed, "compound", name)
            target = with_personal_offset(MECHANISMS[mechanism], rng, size=config.compound_variation)
            top = int(rng.integers(config.doses - 1, len(CONCENTRATIONS_UM)))
            doses_um = CONCENTRATIONS_UM[top::-1][: config.doses]
            # half effect lies half a step below the lowest active dose, a little lower or higher by potency
            half_effect_um = doses_um[config.active_doses - 1] / (10**0.25 * math.exp(0.15 * rng.standard_normal()))
            efficacy = float(rng.uniform(config.least_efficacy, 1))
            batch = (m + k) % config.batches + 1
            made.append(Compound(name, mechanism, batch, target, doses_um, half_effect_um, efficacy))
    return made


def labels(config: SimulateConfig) -> pd.DataFrame:
    """Active treatments with their mechanism, and DMSO: columns compound, concentration, moa."""
    rows = [
        (compound.name, dose, compound.mechanism)
        for compound in compounds(config)
        for dose in compound.doses_um[: config.active_doses]
    ]
    rows += [POSITIVE_CONTROL] if config.positive_control else []
    return pd.DataFrame([*rows, ("DMSO", 0.0, "DMSO")], columns=["compound", "concentration", "moa"])


def fields(config: SimulateConfig) -> pd.DataFrame:
    """A row a field: batch, plate, replicate, well, site, table and image number, compound, concentration_um,
    mechanism (also of weak doses; DMSO: empty), active, strength (0 to 1), in the order of plates, wells and sites.
    """  # fmt: skip
    rows = []
    wells = _treatment_wells(config)
    per_plate = _compounds_a_plate(config)
    everything = compounds(config)
    for batch in range(1, config.batches + 1):
        own = [compound for compound in everything if compound.batch == batch]
        layouts = [own[start : start + per_plate] for start in range(0, len(own), per_plate)]
        image_number = 0
        for index in range(len(layouts) * config.replicates):
            layout, replicate = layouts[index // config.replicates], index % config.replicates + 1
            plate = f"Week{batch}_{20000 + 1000 * batch + 101 + 20 * index}"
            content = _plate_content(config, layout, wells)
            for well in sorted(content):
                for site in range(1, config.sites + 1):
                    image_number += 1
                    table_number = 0 if batch == 10 else batch  # as BBBC021 has it
                    rows.append((str(batch), plate, replicate, well, site, table_number, image_number, *content[well]))
    columns = ["batch", "plate", "replicate", "well", "site", "table_number", "image_number", "compound",
               "concentration_um", "mechanism", "active", "strength"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


@lru_cache(maxsize=4)
def targets(config: SimulateConfig) -> dict[str, Phenotype]:
    """The full effect of each compound, DMSO and the positive control included."""
    made = {compound.name: compound.target for compound in compounds(config)}
    return {**made, "DMSO": UNTREATED, POSITIVE_CONTROL[0]: MECHANISMS[POSITIVE_CONTROL[2]]}


def file_name(config: SimulateConfig, plate: str, well: str, site: int, channel: str) -> str:
    """An image's name in BBBC021's manner, such as Week1_150607_B02_s1_w1<identifier>.tif."""
    week = plate.partition("_")[0]
    day = FIRST_DAY + datetime.timedelta(days=7 * (int(week.removeprefix("Week")) - 1))
    digest = hashlib.sha256(f"{config.seed}/{plate}/{well}/{site}/{channel}".encode()).hexdigest().upper()
    parts = (digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32])
    return f"{week}_{day:%d%m%y}_{well}_s{site}_{CHANNELS[channel]}{'-'.join(parts)}.tif"


def random_for(seed: int, *names: str | int) -> np.random.Generator:
    """The random numbers of one named thing, the same whatever else is drawn and in whatever order."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _treatment_wells(config: SimulateConfig) -> list[str]:
    taken = CONTROL_WELLS + (POSITIVE_CONTROL_WELLS if config.positive_control else ())
    return [well for well in WELLS if well not in taken]


def _compounds_a_plate(config: SimulateConfig) -> int:
    return len(_treatment_wells(config)) // config.doses


def _most_compounds_a_batch(config: SimulateConfig) -> int:
    dealt = [(m + k) % config.batches for m in range(config.mechanisms) for k in range(config.compounds)]
    return int(np.bincount(dealt).max())


def _plate_content(
    config: SimulateConfig, layout: list[Compound], wells: list[str]
) -> dict[str, tuple[str, float, str, bool, float]]:
    """Well -> compound, concentration, mechanism, active, strength; compounds side by side, highest dose first."""
    content: dict[str, tuple[str, float, str, bool, float]] = {
        well: ("DMSO", 0.0, "", False, 0.0) for well in CONTROL_WELLS
    }
    if config.positive_control:
        name, dose, mechanism = POSITIVE_CONTROL
        content |= {well: (name, dose, mechanism, True, config.effect) for well in POSITIVE_CONTROL_WELLS}
    treatments = [(compound, k) for compound in layout for k in range(config.doses)]
    for well, (compound, k) in zip(wells, treatments, strict=False):  # wells that are left over stay empty
        dose = compound.doses_um[k]
        strength = config.effect * compound.efficacy * dose_strength(dose, half_effect_um=compound.half_effect_um)
        content[well] = (compound.name, dose, compound.mechanism, k < config.active_doses, strength)
    return content
