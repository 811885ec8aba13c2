"""Every step of a study on a Dask cluster: the same bytes as on one machine, and a killed worker loses nothing."""

import os
import signal
import threading
from pathlib import Path

import pytest

import phenolens as ph
from phenolens.core.errors import InputError
from phenolens.core.workers import AtOnce
from phenolens.crops.check import check_source

SETTINGS = {"layout": "bbbc021", "crop_px": 36, "model": "pca", "also": ()}


def files(folder: Path) -> dict[str, bytes]:
    names = (path for path in folder.rglob("*") if path.is_file() and path.suffix in (".npy", ".parquet", ".h5ad"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


@pytest.fixture(scope="module")
def cluster():
    """A Dask cluster of four processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (the extra cluster)")
    settings = {"n_workers": 4, "threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**settings, host="127.0.0.1") as started:
        yield started


@pytest.mark.slow
def test_a_study_is_the_same_bytes_on_a_cluster_whose_workers_are_killed(cluster, tiny_screen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the workers were started elsewhere
    one = ph.run(tmp_path / "one", source=tiny_screen, **SETTINGS)
    done = threading.Event()
    killed: list[int] = []

    def kill() -> None:
        while not done.wait(2):
            pids = [worker.pid for worker in cluster.workers.values() if worker.status.name == "running"]
            if pids and len(killed) < 3:
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        source = os.path.relpath(tiny_screen)
        many = ph.run("many", source=source, scheduler=cluster.scheduler_address, **SETTINGS)
    finally:
        done.set()
        killer.join()
    assert files(many.folder) == files(one.folder)
    assert killed


def test_checking_on_a_cluster_finds_the_same(cluster, tiny_screen):
    here = check_source(tiny_screen, layout="bbbc021", sample=1)
    there = check_source(tiny_screen, layout="bbbc021", sample=1, at_once=AtOnce(scheduler=cluster.scheduler_address))
    assert (there.there, there.missing) == (here.there, here.missing)


def test_a_scheduler_that_is_not_there_is_refused_before_a_study_is_begun(tiny_screen, tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed (the extra cluster)")
    monkeypatch.setattr("phenolens.core.workers.CONNECT_S", "1s")
    with pytest.raises(InputError, match="no Dask scheduler answers there"):
        ph.crop(tmp_path / "study", source=tiny_screen, layout="bbbc021", scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "study").exists()
