"""What others published on BBBC021, to hold beside a score: percent, each by its authors on the full data.

Lafarge et al. 2019, Table 1: mean ± standard deviation of 3 runs; the rows of Ando and Singh are quoted there.
"""

from dataclasses import dataclass

COLUMN_TITLES = ("Mean", "Mean +Whitened", "Mean+S.D.", "Mean+S.D. +Whitened")


@dataclass(frozen=True)
class PublishedRow:
    """A row of the paper's Table 1: percent and deviation in the order of COLUMN_TITLES, None where not given."""

    protocol: str
    method: str
    percent: tuple[tuple[float, float | None] | None, ...]


TABLE_1 = (
    PublishedRow("NSC", "VAE+ (Lafarge 2019)", ((90.6, 1.5), (90.3, 1.0), (92.2, 1.7), (92.9, 2.4))),
    PublishedRow("NSC", "VAE (Lafarge 2019)", ((83.5, 1.0), (80.6, 4.4), (90.9, 1.1), (87.1, 0.6))),
    PublishedRow("NSC", "AE (Lafarge 2019)", ((87.6, 2.0), (92.2, 1.0), (90.3, 0.0), (92.5, 0.6))),
    PublishedRow("NSC", "Ando 2017", (None, (96.0, None), None, None)),
    PublishedRow("NSC", "Singh 2014", ((90.0, None), None, None, None)),
    PublishedRow("NSCB", "VAE+ (Lafarge 2019)", ((71.0, 1.2), (76.1, 1.1), (72.5, 2.3), (82.2, 2.6))),
    PublishedRow("NSCB", "VAE (Lafarge 2019)", ((68.8, 0.6), (69.9, 5.1), (74.6, 0.6), (71.0, 0.6))),
    PublishedRow("NSCB", "AE (Lafarge 2019)", ((75.0, 2.0), (79.0, 0.6), (76.8, 0.7), (80.8, 1.7))),
    PublishedRow("NSCB", "Ando 2017", (None, (95.0, None), None, None)),
    PublishedRow("NSCB", "Singh 2014", ((85.0, None), None, None, None)),
)

# method, NSC, NSCB, whether it can decode its representations back into pictures
OTHERS = (
    ("CytoGAN (Goldsborough 2017)", "68", "–", "no"),
    ("Factor analysis (Ljosa 2013)", "94", "77", "no"),
    ("Pretrained network + TVN (Ando 2017)", "96", "95", "no"),
    ("Weak labels (Caicedo 2018)", "97.1", "87.0", "no"),
    ("Compound labels, WS-DINO (2022)", "98", "96", "no"),
)

# The compounds with a published mechanism: a screen whose treatments are of exactly these is BBBC021.
COMPOUNDS = frozenset(
    {
        "ALLN",
        "AZ-A",
        "AZ-C",
        "AZ-J",
        "AZ-U",
        "AZ138",
        "AZ258",
        "AZ841",
        "MG-132",
        "PD-169316",
        "PP-2",
        "alsterpaullone",
        "anisomycin",
        "bryostatin",
        "camptothecin",
        "chlorambucil",
        "cisplatin",
        "colchicine",
        "cyclohexamide",
        "cytochalasin B",
        "cytochalasin D",
        "demecolcine",
        "docetaxel",
        "emetine",
        "epothilone B",
        "etoposide",
        "floxuridine",
        "lactacystin",
        "latrunculin B",
        "methotrexate",
        "mevinolin/lovastatin",
        "mitomycin C",
        "mitoxantrone",
        "nocodazole",
        "proteasome inhibitor I",
        "simvastatin",
        "taxol",
        "vincristine",
    }
)

# Share of synthetic cells that assessors called real in each paper's blinded test; neither gives the false alarms.
PASSED = (("VAE+, Lafarge 2019", 0.407), ("CytoGAN, Goldsborough 2017", 0.30))
