"""One file with the tables of all plates, so that a store of thousands opens without reading them one by one.

It repeats the plates' tables, which stay what counts: it belongs to their names, sizes and times of change, and is made
again when it is lost or they changed.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import feather

from phenolens.core.files import sha256, write_whole

INDEX = "cells.feather"
MANY_PLATES = 64  # a store of fewer is read as fast without an index
STATE = b"phenolens_state"  # in the schema's metadata

Listing = dict[str, os.stat_result]


def listing(folder: Path) -> Listing:
    """The name and state of every file in a folder."""
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat() for entry in entries if entry.is_file()}


def indexed(folder: Path, names: Sequence[str], read: Callable[[], pa.Table]) -> pa.Table:
    """The tables of these files in one, from the index if it is theirs; else as `read` gives it, which is kept.

    A folder that cannot be written to keeps no index.
    """
    files = listing(folder)
    states = [(name, files[name].st_size, files[name].st_mtime_ns) for name in names if name in files]
    state = sha256(json.dumps(states)).encode()
    try:
        table = feather.read_table(folder / INDEX)
        if (table.schema.metadata or {}).get(STATE) == state:
            return table.replace_schema_metadata(None)
    except (OSError, pa.ArrowException):
        pass
    table = read()
    try:
        with write_whole(folder / INDEX) as file:
            feather.write_feather(table.combine_chunks().replace_schema_metadata({STATE: state}), file)
    except OSError:
        pass
    return table
