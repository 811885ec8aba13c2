"""Make the project's own environment in .venv, with the pinned versions, once; Python 3.11 or newer is all it needs."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv"


def python_with(*extras: str) -> str:
    """The environment's Python, with phenolens and these extras installed; made or brought up to date first."""
    if sys.version_info < (3, 11):  # noqa: UP036  # it runs before anything is installed
        sys.exit(f"phenolens needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    python = FOLDER / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = hashlib.sha256()
    for name in ("constraints.txt", "pyproject.toml"):
        wanted.update((ROOT / name).read_bytes())
    stamp = FOLDER / f"installed-{'-'.join(sorted(extras))}"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted.hexdigest():
        return str(python)
    if not python.exists():
        print(f"making an environment in {FOLDER}", flush=True)
        venv.create(FOLDER, with_pip=True)
    print("installing pinned packages (a minute or two; PyTorch is the largest)", flush=True)
    source = f"{ROOT}[{','.join(extras)}]"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), "--editable", source], check=False)
    if done.returncode:
        sys.exit("pip could not install the pinned packages; its message stands above")
    stamp.write_text(wanted.hexdigest())
    return str(python)


def with_browser() -> None:
    """Install Debian's chromium where it is missing and can be installed; else say what the tests of pages need."""
    if shutil.which("chromium"):
        return
    as_root = [] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["sudo", "-n"]
    if shutil.which("apt-get") and (not as_root or shutil.which("sudo")):
        print("installing Debian's chromium, in which the pages are tested", flush=True)
        quiet = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "check": False}
        subprocess.run([*as_root, "apt-get", "update", "-qq"], **quiet)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
        subprocess.run([*as_root, *install], stdout=subprocess.DEVNULL, **quiet)
    if not shutil.which("chromium"):
        print("no chromium here: pages are not tested in a browser; install the package chromium to do so", flush=True)
