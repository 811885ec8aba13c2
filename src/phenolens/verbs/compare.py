"""`phenolens compare`: which queries two scores answer differently, and whether that could be chance."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from phenolens.core.bounds import Bounded, Count, Seed
from phenolens.core.errors import InputError
from phenolens.core.files import write_text
from phenolens.core.progress import tell


@dataclass(frozen=True)
class Flags(Bounded):
    """What `phenolens compare` takes."""

    a: Positional[Path]  # a neighbours_*.csv of `phenolens evaluate`, or the folder of a table's scores
    b: Positional[Path]  # the other, of the same treatments
    protocol: str = "NSC"  # of two folders: which score
    out: Path | None = None  # a CSV for the queries that changed
    draws: Count = 10_000  # of signs, for the p-value
    draw_seed: Seed = 0  # of the draws


def act(flags: Flags) -> None:
    """Compare two scores query by query and print what changed."""
    from phenolens.profiles.scores_folder import protocol_of, read_queries
    from phenolens.profiles.uncertainty import compare_queries

    a, b = (_file(path, flags.protocol) for path in (flags.a, flags.b))
    held_out = [protocol_of(path) for path in (a, b)]
    if all(held_out) and held_out[0] != held_out[1]:
        raise InputError(
            f"{a} holds out {held_out[0]}, {b} {held_out[1]}: their queries choose among other candidates, so a "
            "difference does not come from the profiles; compare scores of one protocol"
        )
    compared = compare_queries(read_queries(a), read_queries(b), n_draws=flags.draws, seed=flags.draw_seed)
    if flags.out is not None:
        write_text(flags.out, compared.changed.to_csv(index_label="row"))
    table = Table("query", "mechanism", "a", "b", "right")
    for name, row in compared.changed.iterrows():
        table.add_row(str(name), row["moa"], row["predicted_a"], row["predicted_b"], "a" if row["right_a"] else "b")
    if len(compared.changed):
        Console(width=140).print(table)
    print(
        f"{compared.n_treatments} queries are counted in both: {compared.only_a_right} right in a alone, "
        f"{compared.only_b_right} in b alone; p = {compared.p_value:.3g} (signs of whole compounds flipped, "
        f"{flags.draws:,} times), {compared.p_value_mcnemar:.3g} (McNemar's exact test, as if queries were independent)"
    )
    tell(f"a is {a}, b is {b}" + (f"; the changed queries are in {flags.out}" if flags.out else ""))


def _file(path: Path, protocol: str) -> Path:
    """The table of queries; InputError when there is none."""
    file = path / f"neighbours_{protocol}.csv" if path.is_dir() else path
    if not file.is_file():
        there = ", ".join(sorted(found.name for found in path.glob("neighbours_*.csv"))) if path.is_dir() else "nothing"
        raise InputError(f"{file}: no such table of queries (there is: {there or 'nothing'}); see --protocol")
    return file
