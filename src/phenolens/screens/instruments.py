"""The names that instruments give to image files, as patterns; `--pattern phenix` is all of one instrument's names.

The parts that vary between versions (planes, time points, identifiers) are patterns of their own, tried in order. The
plate is the folder that the instrument names after it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Instrument:
    """An instrument, and the patterns of its names, the most particular first."""

    title: str
    patterns: tuple[str, ...]


def _in(folders: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    return tuple(folder + name for name, folder in product(names, folders))


# Plate1__2021-08-14T15_29_30-Measurement 1/Images/r02c03f01p01-ch1sk1fk1fl1.tiff; rc1 and t of other versions
MEASUREMENT = ("{plate}__*/Images/", "{plate}__*/", "{plate}/Images/", "{plate}/")
HARMONY = _in(
    MEASUREMENT,
    (
        "r{row:2}c{column:2}f{site}p{z}-ch{channel}sk{t}fk*fl*.tif",
        "r{row:2}c{column:2}f{site}p{z}rc*-ch{channel}sk{t}fk*fl*.tif",
        "r{row:2}c{column:2}f{site}p{z}-ch{channel}t{t}.tif",
    ),
)
# 002003-1-001001002.tif: row and column, field, plane, time point, channel
COLUMBUS = _in(MEASUREMENT, ("{row:3}{column:3}-{site}-{z:3}{t:3}{channel:3}.tif",))
# B - 02(fld 1 wv UV - DAPI z 3 time 1 - 0 ms).tif
INCELL = _in(
    ("{plate}/",),
    [
        f"{{row}} - {{column}}(fld {{site}} wv {{channel}}{after}).tif"
        for after in (" z {z} time {t} - * ms", " time {t} - * ms z {z}", " time {t} - * ms", " z {z}", "")
    ],
)
# 2021-08-14/1234/TimePoint_1/ZStep_2/Screen_B02_s1_w1A1B2C3D4-....tif
IMAGEXPRESS = _in(
    ("{plate}/TimePoint_{t}/ZStep_{z}/", "{plate}/TimePoint_{t}/", "{plate}/ZStep_{z}/", "{plate}/"),
    [
        f"{before}{{well}}{site}{channel}{end}.tif"
        for end in ("{guid}", "")
        for site in ("_s{site}", "")
        for channel in ("_w{channel}", "")
        for before in ("*_", "")
        if site or channel
    ],
)
INSTRUMENTS = {
    "phenix": Instrument("Opera Phenix (Harmony)", HARMONY),
    "operetta": Instrument("Operetta (Harmony, Columbus)", HARMONY + COLUMBUS),
    "incell": Instrument("IN Cell Analyzer", INCELL),
    # AssayPlate_Greiner_#655090_B02_T0001F001L01A01Z01C01.tif
    "cv8000": Instrument(
        "CellVoyager CV7000 and CV8000", _in(("{plate}/",), ("*_{well}_T{t}F{site}L*A*Z{z}C{channel}.tif",))
    ),
    "imagexpress": Instrument("ImageXpress (MetaXpress)", IMAGEXPRESS),
    # A1_02_1_1_DAPI_001.tif: well, step, channel, field, its name, time point; A1_02_1_1Z0_DAPI_001.tif
    "cytation": Instrument(
        "Cytation (Gen5)",
        _in(("{plate}/",), ("{well}_*_{site}Z{z}_{channel}_{t}.tif", "{well}_*_{site}_{channel}_{t}.tif")),
    ),
    # W0014F0001T0001Z001C1.tif: the well is a running number
    "cq1": Instrument(
        "CellVoyager CQ1",
        _in(("{plate}/Image/", "{plate}/Projection/", "{plate}/"), ("W{index:4}F{site:4}T{t:4}Z{z}C{channel}.tif",)),
    ),
    # B4--W00016--P00003--Z00000--T00000--DAPI.tif; without a well in front the W numbers the wells
    "scanr": Instrument(
        "ScanR",
        _in(
            ("{plate}/data/", "{plate}/"),
            ("{well}--W*--P{site}--Z{z}--T{t}--{channel}.tif", "*--W{index}--P{site}--Z{z}--T{t}--{channel}.tif"),
        ),
    ),
    # Exp_Plate_R_p00_z00_0_A01f00d0.TIF: time point, plane, well, field, dye; the plane is missing where there is one
    "evos": Instrument(
        "EVOS",
        _in(
            ("{plate}/",),
            ("*_Plate_R_p{t}_z{z}_*_{well}f{site}d{channel}.tif", "*_Plate_R_p{t}_*_{well}f{site}d{channel}.tif"),
        ),
    ),
    # AS_09047_050428030001_A01f00d0.TIF: scan, well, field, dye
    "arrayscan": Instrument("ArrayScan, CellInsight", _in(("{plate}/",), ("*_{well}f{site}d{channel}.tif",))),
    # A01-Site_0/img_000000000_DAPI_000.tif: well, field, time point, channel, plane
    "micromanager": Instrument(
        "Micro-Manager",
        _in(
            ("{plate}/{well}-Site_{site}/",),
            ("img_channel{channel}_position*_time{t}_z{z}.tif", "img_{t}_{channel}_{z}.tif"),
        ),
    ),
}
# Names from which no pattern can tell the well, and what they are.
WITHOUT_WELLS = {
    re.compile(r"--U\d+--V\d+--.*--X\d+--Y\d+--"): "Leica's Matrix Screener counts wells (U, V) and fields (X, Y) "
    "along two axes from 0, which no pattern reads",
    re.compile(r"img_(?:channel\d+_position\d+_time)?\d+_(?:z|.*_)\d+\.tif"): "Micro-Manager numbers positions and "
    "names no wells, unless they are in folders such as A01-Site_0",
}
