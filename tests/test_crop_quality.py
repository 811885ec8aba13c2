"""Crop quality in the report: counts by plate, unusual plates, what was left out, examples."""

import numpy as np
import pandas as pd
import pytest

from phenolens.core.files import write_json, write_parquet
from phenolens.crops.config import FLAGS
from phenolens.crops.store import FORMAT, VERSION, CropStore, write_npy
from phenolens.plotting.style import alt_of
from phenolens.reports.crop_quality import FoundNuclei, crop_quality, excluded_crops, flag_counts, unusual_shares
from phenolens.reports.page import report_html
from test_report import contents

FOUR = {
    "p1": ["noise in DNA"] + ["bright spot in actin"] * 2 + [""] * 97,
    "p2": ["noise in DNA, actin; out of focus"] + ["bright spot in actin"] * 3 + [""] * 96,
    "p3": ["saturated in actin"] * 9 + ["bright spot in DNA"] * 2 + [""] * 89,
    "p4": ["saturated in actin; bright spot in actin"] * 30 + [""] * 70,
}


def measures_of(flags: list[str]) -> pd.DataFrame:
    """A table as of `crop_quality`, by these flags; the later a crop, the more extreme it is."""
    later = np.arange(len(flags), dtype=float)
    table = {"focus": -later}
    for channel in ("DNA", "actin"):
        for kind in ("noise", "saturated", "bright spot"):
            named = [any(kind in flag and channel in flag for flag in words.split("; ")) for words in flags]
            table[f"{kind.replace(' ', '_')}_{channel}"] = named
        table |= {f"{what}_{channel}": later for what in ("saturated_share", "spot_contrast")}
        table[f"neighbour_correlation_{channel}"] = -later
    return pd.DataFrame(table)


@pytest.fixture
def store_of(tmp_path):
    """Make a store whose crops have these flags; crop k of all has the value k + 1 in its first pixel, else 0."""

    def make(plates: dict[str, list[str]], *, leave_out: tuple[str, ...] = ("noise",), source=None) -> CropStore:
        n_before, parts = 0, {}
        for plate, flags in plates.items():
            crops = np.zeros((len(flags), 2, 8, 8), np.uint16)
            crops[:, :, 0, 0] = np.arange(n_before, n_before + len(flags))[:, None] + 1
            is_noise = [any(kind in words for kind in leave_out) for words in flags]
            ids = [f"{plate}_{k}" for k in range(len(flags))]
            write_npy(tmp_path / f"{plate}.npy", [crops], crops.shape)
            table = pd.DataFrame({"cell_id": ids, "plate": plate, "is_noise": is_noise, "flags": flags})
            write_parquet(tmp_path / f"{plate}.parquet", table, about={})
            quality = measures_of(flags).assign(cell_id=ids)
            write_parquet(tmp_path / "quality" / f"{plate}.parquet", quality, about={})
            n_flagged = {kind: sum(kind in words for words in flags) for kind in FLAGS}
            counts = {"n_crops": len(flags), "n_noise": sum(is_noise), "n_flagged": n_flagged}
            parts[plate] = {**counts, "n_at_border": 25}
            n_before += len(flags)
        about = {"format": FORMAT, "version": VERSION, "complete": True, "channels": ["DNA", "actin"], "crop_px": 8}
        about |= {"source": source or {}, "left_out": {}, "config": {"leave_out": list(leave_out)}, "plates": parts}
        write_json(tmp_path / "about.json", about)
        return CropStore.open(tmp_path)

    return make


def test_a_crop_with_two_flags_counts_under_both(store_of):
    counts = flag_counts(store_of(FOUR))
    assert counts.columns.tolist() == ["crops", "noise", "saturated", "bright spot", "out of focus", "left out"]
    assert counts.loc["p2"].tolist() == [100, 1, 0, 3, 1, 1]
    assert counts.loc["p4"].tolist() == [100, 0, 30, 30, 0, 0]


def test_a_plate_with_more_than_three_times_the_median_share_is_unusual(store_of):
    words = unusual_shares(flag_counts(store_of(FOUR)))
    # bright spot: 2, 3, 2 and 30 %; saturated: 0, 0, 9 and 30 %, where nine crops are too few to tell
    saturated, spots = "saturated: 30 %, the median plate 4.5 %", "bright spot: 30 %, the median plate 2.5 %"
    assert words.to_dict() == {"p1": "", "p2": "", "p3": "", "p4": f"{saturated}; {spots}"}


def test_three_times_the_median_is_not_yet_more(store_of):
    plates = {f"p{k}": ["bright spot in DNA"] * n + [""] * (80 - n) for k, n in enumerate([10, 10, 30, 31])}
    words = unusual_shares(flag_counts(store_of(plates | {"p4": plates["p0"]})))
    assert words[words != ""].index.tolist() == ["p3"]


def test_of_two_plates_none_is_unusual(store_of):
    store = store_of({"p1": [""] * 1000, "p2": ["bright spot in DNA"] * 100})
    assert unusual_shares(flag_counts(store)).tolist() == ["", ""]
    found = crop_quality(store)
    assert found.n_unusual == 0
    assert "unusual" not in found.by_plate


def test_crops_left_out_and_crops_only_flagged_are_counted_apart(store_of):
    found = crop_quality(store_of(FOUR))
    assert (found.n_crops, found.n_flagged, found.n_left_out) == (400, 48, 2)
    assert (found.n_plates, found.n_unusual, found.n_unlisted) == (4, 1, 0)
    assert (found.kept_out, found.biasing, found.found) == (["noise"], [], None)
    table = found.by_plate.set_index("plate")
    assert table.loc["all 4"].tolist() == [400, 2, 39, 37, 1, 2, ""]
    assert table.index.tolist() == ["all 4", *FOUR]


def test_leaving_out_saturated_crops_biases_against_dividing_cells(store_of):
    found = crop_quality(store_of(FOUR, leave_out=("noise", "saturated")))
    assert (found.n_left_out, found.biasing) == (41, ["saturated"])
    page = report_html(contents(quality=found))
    assert "saturated, so it has this bias" in page
    assert "has this bias" not in report_html(contents(quality=crop_quality(store_of(FOUR))))


def test_nuclei_that_were_found_here_are_counted_with_those_at_borders(store_of):
    found = crop_quality(store_of(FOUR, source={"cells": "found"})).found
    assert found == FoundNuclei(by_cellpose=False, channel="DNA", n=500, n_at_border=100)


def test_each_example_is_a_crop_with_its_flag(store_of):
    store = store_of(FOUR)
    figure = crop_quality(store).example_crops
    shown: dict[str, list[int]] = {}
    for axes in figure.axes:
        if axes.get_ylabel():
            kind = axes.get_ylabel().split("\n")[0]
        if axes.images:
            shown.setdefault(kind, []).append(int(np.asarray(axes.images[0].get_array())[0, 0]) - 1)
    assert {kind: len(rows) for kind, rows in shown.items()} == {
        "noise": 2 * 2,  # crops, each in both channels
        "saturated": 6 * 2,
        "bright spot": 6 * 2,
        "out of focus": 1 * 2,
    }
    flags = store.cells["flags"]
    assert [kind for kind, rows in shown.items() for row in rows if kind not in flags[row]] == []
    assert shown["bright spot"][::2] == [329, 328, 327, 326, 325, 324]  # the most extreme first
    assert "noise (2 of 400), saturated (39 of 400), bright spot (37 of 400), out of focus (1 of 400)" in alt_of(figure)


def test_of_many_plates_only_unusual_ones_are_listed(store_of):
    plates = {f"p{k:02}": ["bright spot in DNA"] * (1 if k else 20) + [""] * 40 for k in range(13)}
    found = crop_quality(store_of(plates))
    assert found.by_plate["plate"].tolist() == ["all 13", "p00"]
    assert found.n_unlisted == 12


def test_without_a_flag_there_are_no_examples(store_of):
    found = crop_quality(store_of({"p1": [""] * 5}))
    assert (found.n_flagged, found.example_crops) == (0, None)


def test_the_page_has_the_counts_the_table_and_the_examples(store_of):
    source = {"cells": "cellpose"}
    page = report_html(contents(quality=crop_quality(store_of(FOUR, source=source))))
    section = " ".join(page.split('<section id="quality"')[1].split("</section>")[0].split())
    for part in ("48 (12.0 %) of 400 crops", "only flagged: 46", "1 of 4 plates", "500 nuclei", "100 (20.0 %)"):
        assert part in section
    assert '<td>p2</td><td class="number">100</td><td class="number">1</td>' in section
    assert section.count("<img ") == 1
    assert 'alt="Example crops of each kind of flag: noise (2 of 400)' in section
    assert 'class="missing"' not in section


def test_excluded_crops_are_named_by_their_kind(store_of):
    table = excluded_crops(store_of(FOUR, leave_out=("noise", "bright spot")), n_wells=3, min_cells=1)
    assert table.to_numpy().tolist() == [
        ["cells at a border", 100, "their crop would leave the field"],
        ["crops flagged as noise or bright spot", 39, "left out of training and profiles"],
        ["wells", 3, "fewer than 1 cell"],
    ]
