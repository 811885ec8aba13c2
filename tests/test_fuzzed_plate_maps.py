"""Plate maps of any writing: each well has the treatment that was written for it, and what is not used is named."""

import io
import string
import unicodedata

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phenolens.core.errors import InputError
from phenolens.core.names import clean_name
from phenolens.screens.config import LayoutConfig
from phenolens.screens.plate_map import read_plate_map, with_treatments

PLATES = {6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}
ROWS = [*string.ascii_uppercase, *(f"A{letter}" for letter in string.ascii_uppercase)]
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
DOSE_COLUMNS = {  # how a column may be called -> micromolar per its number; None: it may be refused, never ignored
    "concentration": 1,
    "Concentration (uM)": 1,
    "conc_uM": 1,
    "Conc. [µM]": 1,
    "dose_nM": 1e-3,
    "Final Conc": 1,
    "Metadata_Concentration..mM.": 1e3,
    "mmoles_per_liter": 1e3,
    "dose_level": None,
    "Konzentration": None,
    "uM": None,
}
WELL_COLUMNS = ("well", "Well", "Metadata_Well", "well position", "WELL_ID")
COMPOUND_COLUMNS = ("compound", "Compound Name", "Metadata_compound", "drug", "TREATMENT")
OTHERS = ("vendor", "time (h)", "cell line", "Metadata_donor", "row", "column", "source plate", "notes: by hand")
PLATE_COLUMNS = {  # how a column of plates may be called -> whether it is read; else it is refused
    **dict.fromkeys(("plate", "Metadata_Plate", "Plate ID", "barcode"), True),
    **dict.fromkeys(("plate_name", "Assay Plate", "Plate no.", "assay barcode"), False),
}
MECHANISMS = {"actin": "actin", " tubulin ": "tubulin"} | dict.fromkeys(("unknown", "-", "n/a", "None", "?", ""))
NAMES = st.text(alphabet="abcdXYZ αβµé-_ 019(),;|'\"\u200b\u00a0", min_size=1, max_size=12).filter(
    lambda name: clean_name(name) not in ("", "DMSO")
)


@st.composite
def plate_maps(draw):
    """A table of wells as text, how it is written, and what it means."""
    height, width = PLATES[draw(st.sampled_from(sorted(PLATES)))]
    places = [(row, column) for row in range(height) for column in range(1, width + 1)]
    chosen = draw(st.lists(st.sampled_from(places), min_size=2, max_size=6, unique=True))
    spelt = st.sampled_from(
        ("{row}{column:02d}", "{row}{column}", "{lower}{column}", " {row}{column:03d}", "{number:02d}-{column}")
    )
    wells = [draw(spelt).format(row=ROWS[r], lower=ROWS[r].lower(), number=r + 1, column=c) for r, c in chosen]
    compounds = ["DMSO", *draw(st.lists(NAMES, min_size=len(chosen) - 1, max_size=len(chosen) - 1))]
    doses = [
        0.0,
        *draw(
            st.lists(st.sampled_from((0.1, 0.3, 1.0, 2.5, 10.0)), min_size=len(chosen) - 1, max_size=len(chosen) - 1)
        ),
    ]
    column = draw(st.sampled_from(sorted(DOSE_COLUMNS)))
    others = draw(st.lists(st.sampled_from(OTHERS), max_size=3, unique=True))
    table = pd.DataFrame(
        {
            draw(st.sampled_from(WELL_COLUMNS)): wells,
            draw(st.sampled_from(COMPOUND_COLUMNS)): compounds,
            column: doses,
            **{name: [f"v{place % 2}" for place in range(len(chosen))] for name in others},
        }
    )
    table = table[draw(st.permutations(list(table)))]
    expected = {
        f"{ROWS[r]}{c:02d}": (clean_name(compound), dose) for (r, c), compound, dose in zip(chosen, compounds, doses)
    }
    return table, expected, column, others


@st.composite
def writings(draw):
    """Separator, decimal sign, encoding and Unicode form of a file."""
    separator = draw(st.sampled_from((",", "\t", ";", "|")))
    decimal = "." if separator == "," else draw(st.sampled_from(".,"))
    return separator, decimal, draw(st.sampled_from(ENCODINGS)), draw(st.sampled_from(("NFC", "NFD")))


def flags_of(dose_column: str) -> dict[str, str]:
    return {"concentration_column": dose_column} if DOSE_COLUMNS[dose_column] is None else {}


def well_column(table) -> str:
    return next(name for name in table if clean_name(name).lower().replace("metadata_", "").startswith("well"))


def screen_of(folder, table, writing, *, plates=("P",), **flags):
    """The screen of plates whose every well of the map has an image."""
    separator, decimal, encoding, form = writing
    text = io.StringIO()
    table.to_csv(text, index=False, sep=separator, decimal=decimal)
    path = folder / "map.txt"
    path.write_bytes(unicodedata.normalize(form, text.getvalue()).encode(encoding))
    wells = dict.fromkeys(map(_canonical, table[well_column(table)]))
    fields = pd.DataFrame([(plate, well) for plate in plates for well in wells], columns=["plate", "well"])
    fields = fields.assign(site=1, file_DNA=fields["plate"] + fields["well"] + ".tif")
    config = LayoutConfig(plate_map=path, **flags)
    return with_treatments(fields, ["DNA"], source=folder, config=config, skip_missing=False)


def _canonical(well: str) -> str:
    if "-" in well:  # row and column as numbers
        row, column = map(int, well.split("-"))
        return f"{ROWS[row - 1]}{column:02d}"
    letters = "".join(letter for letter in well if letter.isalpha()).upper()
    return f"{letters}{int(''.join(digit for digit in well if digit.isdigit())):02d}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("maps")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(plate_maps(), writings())
def test_each_well_has_the_treatment_that_was_written_for_it(folder, plate_map, writing):
    table, expected, dose_column, others = plate_map
    factor = DOSE_COLUMNS[dose_column]
    if factor is None:
        with pytest.raises(InputError) as error:
            screen_of(folder, table, writing)
        assert unicodedata.normalize("NFKC", dose_column) in unicodedata.normalize("NFKC", str(error.value))
        screen, factor = screen_of(folder, table, writing, concentration_column=dose_column), 1
    else:
        screen = screen_of(folder, table, writing)
    found = {row.well: (row.compound, row.concentration_um) for row in screen.table.itertuples()}
    assert found.keys() == expected.keys()
    for well, (compound, dose) in expected.items():
        assert found[well][0] == compound
        assert found[well][1] == pytest.approx(dose * factor)
    said = " ".join(screen.notes)
    assert [name for name in others if name not in said] == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(plate_maps(), writings(), st.data())
def test_a_map_of_other_wells_is_never_joined_in_silence(folder, plate_map, writing, data):
    """One well less, one more, or one twice: refused, and the well is named."""
    table, _, dose_column, _ = plate_map
    flags, wells = flags_of(dose_column), table[well_column(table)]
    place = data.draw(st.integers(0, len(table) - 1))
    well = _canonical(wells.iloc[place])
    doubled = pd.concat([table, table.iloc[[place]]], ignore_index=True)
    with pytest.raises(InputError, match=well):
        screen_of(folder, doubled, writing, **flags)
    screen_of(folder, table, writing, **flags)  # writes the whole map
    fields = pd.DataFrame({"plate": "P", "well": [_canonical(name) for name in wells]})
    fields = fields.assign(site=1, file_DNA=[f"{name}.tif" for name in fields["well"]])
    config = LayoutConfig(plate_map=folder / "map.txt", **flags)
    for changed in (fields.drop(index=place), pd.concat([fields, fields.iloc[[place]].assign(well="AF48")])):
        if changed["well"].duplicated().any():
            continue
        with pytest.raises(InputError, match=rf"{well}|AF48"):
            with_treatments(changed, ["DNA"], source=folder, config=config, skip_missing=False)


FEWER = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@FEWER
@given(plate_maps(), writings(), st.sampled_from(sorted(PLATE_COLUMNS)))
def test_a_column_of_plates_is_read_or_refused_and_never_ignored(folder, plate_map, writing, column):
    """On the second plate the compounds are in the reverse order."""
    table, expected, dose_column, _ = plate_map
    turned = table.assign(**{name: table[name].iloc[::-1].tolist() for name in table if name != well_column(table)})
    both = pd.concat([table.assign(**{column: "P"}), turned.assign(**{column: "Q"})], ignore_index=True)
    flags = flags_of(dose_column)
    if not PLATE_COLUMNS[column]:
        with pytest.raises(InputError, match="--plate-column") as error:
            screen_of(folder, both, writing, plates="PQ", **flags)
        assert f'"{column}"' in str(error.value)
        flags["plate_column"] = column
    screen = screen_of(folder, both, writing, plates="PQ", **flags)
    found = {(row.plate, row.well): row.compound for row in screen.table.itertuples()}
    compounds = [compound for compound, _ in expected.values()]
    assert [found["P", well] for well in expected] == compounds
    assert [found["Q", well] for well in expected] == compounds[::-1]


@FEWER
@given(plate_maps(), writings(), st.data())
def test_mechanisms_that_are_not_known_are_never_one(folder, plate_map, writing, data):
    table, expected, dose_column, _ = plate_map
    of_compound = {name: data.draw(st.sampled_from(sorted(MECHANISMS))) for name, _ in expected.values()}
    moa = [of_compound[compound] for compound, _ in expected.values()]
    screen = screen_of(folder, table.assign(moa=moa), writing, **flags_of(dose_column))
    for row in screen.table[screen.table["role"] == "treated"].itertuples():
        assert row.moa == MECHANISMS[of_compound[row.compound]]


@FEWER
@given(plate_maps(), writings(), st.sampled_from(("Total", "made by hand", "2026-11-28", "")), st.booleans())
def test_a_row_that_is_no_well_is_named(folder, plate_map, writing, text, is_first):
    table, _, dose_column, _ = plate_map
    other = pd.DataFrame([{**dict.fromkeys(table, "x"), well_column(table): text}])
    rows = pd.concat([other, table] if is_first else [table, other], ignore_index=True)
    flags = flags_of(dose_column)
    path = folder / "map.txt"
    rows.to_csv(path, index=False, sep=writing[0])
    with pytest.raises(InputError, match=rf"map\.txt, row {2 if is_first else len(rows) + 1}:"):
        read_plate_map(path, named=LayoutConfig(**flags).named_columns)
