"""Which flag of a table to score a column asks for by its name."""

from phenolens.core.names import plain_name
from phenolens.screens.doses import is_dose_column

FLAGS = {
    **dict.fromkeys("plate plate_id plate_name plate_barcode barcode assay_plate_barcode".split(), "--plate"),
    **dict.fromkeys("well well_id well_name well_position".split(), "--well"),
    **dict.fromkeys("compound compound_name compound_id drug drug_name gene broad_sample".split(), "--compound"),
    **dict.fromkeys("moa mechanism mechanism_of_action".split(), "--mechanism"),
    **{name: f"--{name}" for name in ("treatment", "batch", "role")},
}


def flag_of(column: str) -> str:
    """`--plate` of `Plate_ID` or `Barcode`; empty where the name asks for none."""
    return "--concentration" if is_dose_column(column) else FLAGS.get(plain_name(column), "")
