"""A bound that sees mechanisms: a linear classifier, trained without the compound that it classifies.

It is not comparable with NSC and NSCB, whose profiles never see a mechanism. M labelled rows, Z features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from phenolens.profiles.nsc import labelled_rows, match

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from phenolens.profiles.candidates import HeldOut

CLASSIFIED = "classified_"  # of the columns of what it gets right, before the protocol


def classified_right(profiles: AnnData, held_out: Sequence[HeldOut], *, several_mechanisms: str = "") -> float:
    """Share of treatments (0 to 1) whose mechanism a classifier names that never saw their compound.

    For each treatment, a ridge classifier (penalty 1, each mechanism of the same weight, rows of length 1) is fitted
    to the rows that share nothing of `held_out` with it. Treatments that the protocol cannot count are left out.

    Args:
        profiles: a row per treatment, as for `nsc`.
        held_out: what the rows of training must not share with the treatment.
        several_mechanisms: separator of several mechanisms in one name: one in common is right.

    Raises:
        InputError: as for `nsc`.
    """
    from sklearn.linear_model import RidgeClassifier

    labelled = labelled_rows(profiles, separator=several_mechanisms)
    matching = match(labelled, held_out)
    rows, fold = labelled.rows, matching.candidates.fold
    countable = np.flatnonzero(matching.answer(labelled.mechanism).eligible)
    right = []
    for query in countable[np.unique(fold[countable], return_index=True)[1]]:
        learn = matching.candidates.block(slice(query, query + 1))[0]
        asked = countable[fold[countable] == fold[query]]
        known = labelled.mechanism[learn]
        if (known == known[0]).all():
            named = np.full(len(asked), known[0])
        else:
            named = RidgeClassifier(class_weight="balanced").fit(rows[learn], known).predict(rows[asked])
        right.append(labelled.same[labelled.mechanism[asked], named] > 0)
    return float(np.concatenate(right).mean())
