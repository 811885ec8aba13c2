"""Plates as JUMP-CP publishes them, from an S3 server to a report: on one machine and on Dask workers, same bytes?

    python benchmarks/cluster.py               # 2 plates of 384 wells
    python benchmarks/cluster.py --wells 24    # smaller

The plates are simulated: five channels, two batches, illumination functions, Parquet metadata. Server, scheduler and
workers run on this machine, from the packages of `pip install "phenolens[dev]"`. The first run downloads the images;
runs on workers find them in its cache, so that their speeds compare the workers alone. Memory is the peak of a process
(Linux).
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
import tyro

from phenolens.core.progress import tell
from phenolens.crops.store import CropStore
from phenolens.simulation.screen_design import SimulateConfig
from phenolens.study import Study
from phenolens.training.device import processor_name

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from jump_source import write_jump
from s3_server import BUCKET, Bucket, serving

SOURCE = "cpg/source_4"
RESULTS = (".npy", ".parquet", ".h5ad")


@dataclass(frozen=True)
class Flags:
    """What the benchmark takes."""

    wells: int = 384  # of a plate
    replicates: int = 1  # plates of each of the two batches
    field_px: int = 100  # side of a field
    workers: tuple[int, ...] = (1, 2)  # processes; the last number also goes on to the report


def main(flags: Flags) -> None:
    """Run all, and print what is compared."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the server writes a line for each image
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch, serving(patch) as bucket:
        folder = Path(temporary)
        given, n_plates = source(folder, bucket, flags)
        pca = ["--model", "pca", "--also", "pca", "--threads", 1]
        seconds, peak = phenolens("run", folder / "one", *given, *pca)
        print(f"{processor_name()}, {os.cpu_count()} cores; {versions()}; {time.strftime('%Y-%m-%d')}")
        print(f"{n_plates} plates of {flags.wells} wells, {len(CropStore.open(folder / 'one' / 'crops')):,} cells")
        print(f"one machine, from address to report: {seconds:.0f} s, {peak:,.0f} MiB\n")
        print("| workers | crops: s | plates a minute | times one | command MiB | scheduler MiB | a worker MiB |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        first = 0.0
        for n in flags.workers:
            with cluster(folder, n) as (scheduler, processes):
                on_workers = [folder / f"workers-{n}", *given, "--scheduler", scheduler]
                seconds, peak = phenolens("crop", *on_workers)
                if n == flags.workers[-1]:
                    phenolens("run", *on_workers, *pca)
                of_scheduler, *of_workers = map(peak_mib, processes)
            first = first or seconds
            print(
                f"| {n} | {seconds:.0f} | {60 * n_plates / seconds:.2f} | {first / seconds:.2f} | {peak:,.0f} | "
                f"{of_scheduler:,.0f} | {max(of_workers):,.0f} |"
            )
        compare(folder / "one", [folder / f"workers-{n}" for n in flags.workers])


def source(folder: Path, bucket: Bucket, flags: Flags) -> tuple[list[object], int]:
    """The flags of a source on the server, and how many plates it has."""
    screen = SimulateConfig(
        mechanisms=2, compounds=2, doses=1, active_doses=1, replicates=flags.replicates, positive_control=True,
        field_width_px=flags.field_px, field_height_px=flags.field_px, cells=8, unevenness=0,
    )  # fmt: skip
    design = write_jump(folder / "source", screen, root=f"s3://{BUCKET}/{SOURCE}", wells=flags.wells)
    address = bucket.upload(folder / "source", SOURCE)
    tell(f"{5 * len(design):,} images are on the server")
    given = ["--source", f"{address}/workspace/load_data_csv", "--layout", "jump", "--anonymous"]
    given += ["--plate-map", f"{address}/metadata", "--mechanism-column", "Metadata_target"]
    given += ["--illumination", "given", "--crop-px", "36", "--nucleus-px", "24"]
    return [*given, "--cache", folder / "cache"], design["plate"].nunique()


def compare(one: Path, others: Sequence[Path]) -> None:
    """Print how many files of the studies differ from those of one machine, and end with code 1 if any does."""
    whole = results(one)
    crops = {name: content for name, content in whole.items() if name.startswith("crops/")}
    differ = [name for study in others[:-1] for name in differing(crops, results(study))]
    differ += differing(whole, results(others[-1]))
    reports = [Study.open(study).report_path.is_file() for study in (one, others[-1])]
    print(f"\n{len(whole):,} files of crops, embeddings, profiles: {len(differ)} differ; reports: {reports}")
    if differ or not all(reports):
        sys.exit(f"differ: {differ}")


@contextmanager
def cluster(folder: Path, n: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler with `n` workers of one thread, and its and their processes."""
    file = folder / f"scheduler-{n}.json"
    common = ["--scheduler-file", str(file), "--dashboard-address", "127.0.0.1:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    of_worker = ["worker", *common, "--nthreads", "1", "--no-nanny"]
    commands = [["scheduler", *common, "--host", "127.0.0.1", "--port", "0"], *[of_worker] * n]
    processes = []
    with (folder / f"cluster-{n}.log").open("wb") as log:
        try:
            for command in commands:
                words = [sys.executable, "-m", "dask", *command]
                processes.append(subprocess.Popen(words, env=environment, stderr=log, stdout=log, cwd=folder))
                while not file.exists():
                    time.sleep(0.2)
            yield json.loads(file.read_text())["address"], processes
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait()


def phenolens(*words: object) -> tuple[float, float]:
    """Seconds and peak MiB of one command."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "phenolens.cli", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"phenolens {' '.join(map(str, words))}: exit code {process.returncode}")
    return time.monotonic() - began, used.ru_maxrss / 1024


def peak_mib(process: subprocess.Popen[bytes]) -> float:
    """The most memory that a running process has had."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def results(study: Path) -> dict[str, bytes]:
    """The files of crops, embeddings and profiles."""
    return {str(path.relative_to(study)): path.read_bytes() for path in study.rglob("*") if path.suffix in RESULTS}


def differing(ours: dict[str, bytes], theirs: dict[str, bytes]) -> Sequence[str]:
    """The names of files that only one side has, or that differ."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def versions() -> str:
    """The versions of the libraries that matter."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in ("phenolens", "distributed", "s3fs", "moto"))


if __name__ == "__main__":
    main(tyro.cli(Flags, description=__doc__.splitlines()[0]))
