"""The same work by processes and by a cluster: same bytes, and a worker that is killed loses nothing."""

import json
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from phenolens.core.errors import InputError
from phenolens.core.workers import AtOnce, _result, done_by_workers
from phenolens.crops.config import CropConfig
from phenolens.crops.make_crops import make_crops
from worker_jobs import fatal, killed_once, read, refuses, square

CONFIG = CropConfig(crop_px=36)
TWO = AtOnce(processes=2)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def cluster():
    """A Dask cluster of two processes on this machine."""
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (the extra cluster)")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as started,
    ):
        yield started


@pytest.mark.parametrize("at_once", [AtOnce(), TWO])
def test_results_come_in_the_order_of_the_jobs(at_once):
    assert list(done_by_workers(square, [3, 1, 2], at_once)) == [9, 1, 4]


def test_a_cluster_gives_the_same_in_the_same_order(cluster):
    scheduler = AtOnce(scheduler=cluster.scheduler_address)
    assert list(done_by_workers(square, [3, 1, 2], scheduler)) == [9, 1, 4]


def test_a_killed_worker_of_a_cluster_loses_nothing(cluster, tmp_path):
    scheduler = AtOnce(scheduler=cluster.scheduler_address)
    assert list(done_by_workers(partial(killed_once, tmp_path), range(6), scheduler)) == [0, 1, 4, 9, 16, 25]
    assert (tmp_path / "killed").exists()


def test_what_a_job_refuses_is_refused_here_at_once(cluster, tmp_path):
    for n, at_once in enumerate((AtOnce(), TWO, AtOnce(scheduler=cluster.scheduler_address)), start=1):
        with pytest.raises(InputError, match="job 1: no such thing") as refused:
            list(done_by_workers(partial(refuses, tmp_path), [0, 1, 2], at_once))
        assert len(list(tmp_path.iterdir())) == n
        assert ("on worker" in str(refused.value)) == (at_once.scheduler is not None)
    assert "Traceback" not in str(cluster.get_logs())


def test_a_worker_of_another_version_is_refused(cluster, monkeypatch):
    monkeypatch.setattr("phenolens.core.workers.version", lambda name: "9.9")
    with pytest.raises(InputError, match=r"has phenolens 0\.\d.*this command 9\.9"):
        list(done_by_workers(square, [1], AtOnce(scheduler=cluster.scheduler_address)))


def test_a_file_that_a_worker_does_not_see_is_one_line(cluster, tmp_path):
    with pytest.raises(InputError, match=f"worker .*: {tmp_path}/here alone is not there; workers must see"):
        list(done_by_workers(read, [tmp_path / "here alone"], AtOnce(scheduler=cluster.scheduler_address)))


def test_a_cluster_without_workers_is_waited_for_and_said(capsys, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (the extra cluster)")
    monkeypatch.setattr("phenolens.core.workers.LOOK_S", 0.2)
    with distributed.LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as empty:
        later = threading.Timer(2, empty.scale, [1])
        later.start()
        assert list(done_by_workers(square, [3], AtOnce(scheduler=empty.scheduler_address))) == [9]
        later.join()
    assert f"start one with `dask worker {empty.scheduler_address}`" in capsys.readouterr().err


@pytest.mark.slow
def test_a_scheduler_that_dies_is_one_line(tmp_path, capfd):
    pytest.importorskip("distributed", reason="Dask is not installed (the extra cluster)")
    words = [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", "0"]
    words += ["--scheduler-file", str(tmp_path / "scheduler.json"), "--dashboard-address", "127.0.0.1:0"]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as scheduler:
        while not (tmp_path / "scheduler.json").exists():
            time.sleep(0.1)
        address = json.loads((tmp_path / "scheduler.json").read_text())["address"]

        def jobs():
            yield 1
            scheduler.kill()
            scheduler.wait()
            yield 2

        with pytest.raises(InputError, match=f"{address}: it was lost"):
            list(done_by_workers(abs, jobs(), AtOnce(scheduler=address)))
    assert "Traceback" not in capfd.readouterr().err


def test_a_scheduler_never_has_all_jobs_of_a_long_list(cluster, monkeypatch):
    monkeypatch.setattr("phenolens.core.workers.LEAST_SENT", 1)
    drawn = []

    def jobs():
        for number in range(30):
            drawn.append(number)
            yield number

    results = done_by_workers(square, jobs(), AtOnce(scheduler=cluster.scheduler_address))
    for number, result in enumerate(results):
        assert result == number**2
        assert len(drawn) - number <= 2 * 2 + 1


@pytest.mark.slow
def test_a_job_that_ends_every_worker_is_one_line(tmp_path):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (the extra cluster)")
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as few,
        pytest.raises(InputError, match=few.scheduler_address) as refused,
    ):
        list(done_by_workers(fatal, [0, 1, 2], AtOnce(scheduler=few.scheduler_address)))
    assert "\n" not in str(refused.value)


def test_crops_are_the_same_bytes_however_they_are_cut(cluster, tiny_screen, tmp_path):
    one = make_crops(tiny_screen, tmp_path / "one", layout="bbbc021", config=CONFIG)
    for name, at_once in (("two", TWO), ("many", AtOnce(scheduler=cluster.scheduler_address))):
        other = make_crops(tiny_screen, tmp_path / name, layout="bbbc021", config=CONFIG, at_once=at_once)
        assert files(other.folder) == files(one.folder)
        assert other.identity == one.identity


def test_plates_that_are_cut_already_are_kept(tiny_screen, tmp_path):
    store = make_crops(tiny_screen, tmp_path / "crops", layout="bbbc021", config=CONFIG)
    whole = files(store.folder)
    kept, lost = store.plates
    (store.folder / f"{lost}.npy").unlink()
    before = (store.folder / f"{kept}.npy").stat().st_mtime_ns
    time.sleep(0.01)
    make_crops(tiny_screen, tmp_path / "crops", layout="bbbc021", config=CONFIG, at_once=TWO)
    assert files(store.folder) == whole
    assert (store.folder / f"{kept}.npy").stat().st_mtime_ns == before


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_a_scheduler_that_is_not_there_is_refused(monkeypatch, address):
    pytest.importorskip("distributed", reason="Dask is not installed (the extra cluster)")
    monkeypatch.setattr("phenolens.core.workers.CONNECT_S", "1s")
    with pytest.raises(InputError, match="no Dask scheduler answers there"):
        list(done_by_workers(square, [1], AtOnce(scheduler=address)))


def test_without_dask_the_install_line_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(InputError, match=r'pip install "phenolens\[cluster\]"'):
        list(done_by_workers(square, [1], AtOnce(scheduler="tcp://127.0.0.1:9")))


def test_no_fewer_than_one_process():
    with pytest.raises(InputError, match="--processes 0"):
        AtOnce(processes=0)


@pytest.mark.parametrize("is_guarded", [True, False])
def test_a_script_without_the_guard_of_main_is_told_so_in_one_line(tmp_path, is_guarded):
    call = (
        'ph.simulate("SCREEN", mechanisms=1, compounds=1, doses=1, active_doses=1, cells=2, replicates=1, processes=2)'
    )
    guard = 'if __name__ == "__main__":\n    ' if is_guarded else ""
    (tmp_path / "script.py").write_text(f"import phenolens as ph\n{guard}{call}\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == is_guarded
    assert done.stderr.count("freeze_support") == 0
    if not is_guarded:
        assert done.stderr.count("runs your script again") == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.endswith('put what the script does under `if __name__ == "__main__":`, or set processes=1')


def test_a_job_that_ends_while_it_was_looked_for_workers_is_answered():
    class Late:
        def __init__(self):
            self.asked = 0

        def done(self):
            return self.asked > 0

        def result(self, timeout):
            self.asked += 1
            if self.asked == 1:
                raise TimeoutError
            return "answer"

    class Client:
        def nthreads(self):
            return {"worker": 1}

    pytest.importorskip("distributed", reason="Dask is not installed (the extra cluster)")
    assert _result(Late(), Client()) == "answer"
