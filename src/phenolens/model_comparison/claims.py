"""What Lafarge et al. 2019 and Goldsborough et al. 2017 claim of these models, beside what holds on a study's cells."""

from collections.abc import Iterator

import pandas as pd

from phenolens.profiles.score_table import KINDS, STATISTICS, TABLE_1

CYTOGANS = ("dcgan", "lsgan", "wgan", "began")
CYTOGAN = {"NSC": "LSGAN 76"}  # their poster: whitened on controls, each compound counted once
MODELS_OF_TABLE_1 = {"ae": "AE", "vae": "VAE", "vaeplus": "VAE+"}
COLUMNS = ("claim", "protocol", "published on BBBC021", "here")


def claims(scores: pd.DataFrame) -> pd.DataFrame:
    """A row per claim and protocol, of the entries that were compared: COLUMNS, all text, % right.

    Args:
        scores: As `compute.compared` returns them.
    """
    rows = [
        (claim, protocol, published, here)
        for protocol in dict.fromkeys(scores["protocol"].astype(str))
        for claim, published, here in _of_protocol(scores[scores["protocol"] == protocol], protocol)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of_protocol(scores: pd.DataFrame, protocol: str) -> Iterator[tuple[str, str, str]]:
    """Each claim, what was published, and what holds here."""
    entries = {
        kind: scores[(scores[["statistics", "whitening"]] == kind).all(axis=1)].set_index("entry") for kind in KINDS
    }
    published = {kind: _published(protocol, place) for place, kind in enumerate(KINDS)}
    best, theirs = entries["mean+sd", "whitened"], published["mean+sd", "whitened"]
    for other in ("vae", "ae"):
        if {"vaeplus", other} <= set(best.index):
            ours, others = 100 * best.loc[["vaeplus", other], "accuracy"].to_numpy(float)
            p_value = float(best["p_vaeplus"].to_numpy(float)[best.index == other].item())
            claimed = f"{theirs['vaeplus']} against {theirs[other]}" if theirs else "–"
            here = f"{ours:.1f} against {others:.1f}, p = {p_value:.2g}"
            yield f"VAE+ is above {MODELS_OF_TABLE_1[other]}", claimed, here
    for statistics in STATISTICS:
        before, after = (statistics, "none"), (statistics, "whitened")
        gains = 100 * (entries[after]["accuracy"] - entries[before]["accuracy"]).dropna()
        gains = gains[~gains.index.str.endswith("-untrained")]
        if len(gains):
            claimed = ", ".join(
                f"{MODELS_OF_TABLE_1[name]} {value - published[before][name]:+.1f}"
                for name, value in published[after].items()
            )
            here = f"{(gains > 0).sum()} of {len(gains)} models gain, median {gains.median():+.1f}"
            yield f"whitening helps ({statistics})", claimed, here
    whitened = entries["mean", "whitened"].sort_values("over_compounds", ascending=False)
    if "vaeplus" in whitened.index and whitened.index.isin(CYTOGANS).any():
        ranked = whitened[whitened.index.isin([*CYTOGANS, "vaeplus"])]
        here = ", ".join(f"{row['title']} {100 * row['over_compounds']:.1f}" for _, row in ranked.iterrows())
        yield "GANs score low (mean, whitened, over compounds)", CYTOGAN.get(protocol, "–"), here


def _published(protocol: str, place: int) -> dict[str, float]:
    """Model -> what Table 1 of the paper has at this place of KINDS; empty for another protocol."""
    rows = {row.method.split(" ")[0]: row for row in TABLE_1 if row.protocol == protocol and "Lafarge" in row.method}
    found = {key: rows[name].percent[place] for key, name in MODELS_OF_TABLE_1.items() if name in rows}
    return {key: cell[0] for key, cell in found.items() if cell is not None}
