"""Nearest-neighbour pairs: which are shown, with which cells, marked as right or wrong."""

import numpy as np
import pandas as pd

from phenolens.core.mapped_rows import MappedRows
from phenolens.plotting.style import alt_of, caption_of, png
from phenolens.reports import compute
from phenolens.reports.nearest_neighbours import Pair, chosen_pairs, nearest_neighbour_pairs
from phenolens.runs.catalogue import Catalogue
from phenolens.runs.embeddings import EmbeddedCells

CHANNELS = ("DAPI", "Tubulin", "Actin")


def queries(*rows) -> pd.DataFrame:
    columns = ["treatment", "moa", "neighbour", "predicted", "distance", "counted", "right"]
    return pd.DataFrame(rows, columns=columns)


class Crops:
    """A store of 3-channel crops whose every pixel is the number of their row plus 1."""

    def take(self, rows):
        return np.stack([np.full((3, 8, 8), row + 1, np.uint16) for row in rows])


def cells(treatments, z, roles="treated") -> EmbeddedCells:
    table = pd.DataFrame({"compound": [name.split("@")[0] for name in treatments], "concentration_um": 1.0})
    table = table.assign(plate="P", batch="B", well=[f"B{row:02d}" for row in range(len(table))], moa="", role=roles)
    rows = MappedRows([len(table)], lambda _: np.asarray(z, float).reshape(len(table), -1))
    return EmbeddedCells(rows, Catalogue.of(table.assign(is_noise=False)))


def test_the_cells_shown_are_those_nearest_to_their_treatments_mean():
    taken = []

    class Store(Crops):
        def take(self, rows):
            taken.append(list(rows))
            return super().take(rows)

    embedded = cells(["a@1", "a@1", "a@1", "b@1", "b@1"], [0.0, 10.0, 4.0, 1.0, 1.5])
    (pair,) = chosen_pairs(queries(("a@1", "x", "b@1", "x", 0.2, True, True)), embedded, Store(), n_cells=2)
    assert taken == [[2, 0], [3, 4]]  # the mean of a@1 is 4.67, that of b@1 is 1.25 (a tie: the first row)
    assert pair.right
    assert pair.cells.shape == (2, 3, 8, 8)


def test_positive_control_wells_of_the_same_dose_are_not_shown_as_the_treatments_cells():
    embedded = cells(["a@1", "a@1", "b@1"], [0.0, 9.0, 1.0], roles=["treated", "other", "treated"])
    (pair,) = chosen_pairs(queries(("a@1", "x", "b@1", "x", 0.2, True, True)), embedded, Crops(), n_cells=2)
    assert len(pair.cells) == 1


def test_wrong_ones_come_first_and_each_is_of_another_mechanism_while_there_are_others():
    rows = [(f"a{k}@1", "x", "b@1", "y", 0.1 + k / 100, True, False) for k in range(6)]
    rows += [("c@1", "z", "b@1", "y", 0.9, True, False), ("d@1", "y", "b@1", "y", 0.5, True, True)]
    rows += [("e@1", "y", "b@1", "y", 0.0, False, True)]  # not counted: not shown
    embedded = cells([row[0] for row in rows] + ["b@1"], np.arange(10.0))
    shown = chosen_pairs(queries(*rows), embedded, Crops(), n_cells=1)
    assert [pair.treatment for pair in shown] == ["a0 1 µM", "c 1 µM", "a1 1 µM", "a2 1 µM", "d 1 µM"]
    assert [pair.right for pair in shown] == [False, False, False, False, True]


def test_without_mechanisms_the_most_similar_pairs_are_shown_once_each():
    rows = {"treatment": ["a@1", "b@1", "c@1", "d@1"], "neighbour": ["b@1", "a@1", "a@1", ""]}
    table = pd.DataFrame(rows | {"moa": "", "predicted": "", "distance": [0.2, 0.2, 0.1, np.nan]})
    shown = chosen_pairs(table, cells(rows["treatment"], np.arange(4.0)), Crops(), n_cells=1)
    assert [(pair.treatment, pair.neighbour, pair.right) for pair in shown] == [
        ("c 1 µM", "a 1 µM", None),
        ("a 1 µM", "b 1 µM", None),
    ]
    texts = [
        text.get_text()
        for axes in nearest_neighbour_pairs([pair(right=None)], channels=CHANNELS).axes
        for text in axes.texts
    ]
    assert "distance 0.12" in texts


def pair(**changed) -> Pair:
    crops = np.random.default_rng(0).random((3, 3, 12, 12))
    kept = {"treatment": "taxol@0.3", "moa": "stabilizers", "neighbour": "epothilone B@1", "predicted": "stabilizers"}
    return Pair(**{**kept, "distance": 0.125, "right": True, "cells": crops, "neighbour_cells": crops[:2], **changed})


def test_the_figure_marks_right_and_wrong_and_gives_the_same_bytes_each_time():
    pairs = [pair(), pair(predicted="destabilizers", neighbour="nocodazole@1", right=False)]
    figure = nearest_neighbour_pairs(pairs, channels=CHANNELS)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert [text for text in texts if "distance" in text] == ["✓ right, distance 0.12", "✗ wrong, distance 0.12"]
    assert caption_of(figure).startswith("n = 2 treatments: 1 ")
    assert "nocodazole@1 (destabilizers), wrong" in alt_of(figure)
    assert png(figure) == png(nearest_neighbour_pairs(pairs, channels=CHANNELS))


def test_tables_name_treatments_by_compound_and_dose_and_keep_the_name_of_one_without_cells():
    catalogue = cells(["a@1", "b@1"], [0.0, 1.0]).catalogue
    wrong = queries(("a@1", "x", "gone@2", "y", 0.2, True, False), ("b@1", "y", "a@1", "y", 0.1, True, True))
    assert compute._wrong(wrong, catalogue)[["treatment", "nearest treatment"]].to_numpy().tolist() == [
        ["a 1 µM", "gone@2"]
    ]
    p_values = {"corrected_p_value": [0.01], "smallest_p_value": [0.001]}
    active = pd.DataFrame({"name": ["b@1"], "distance": [2.0], **p_values})
    assert compute._activity(active, catalogue)["treatment"].tolist() == ["b 1 µM"]
