"""Make the project's own environment in .venv, with the pinned versions, once; Python 3.11 or newer is all it needs."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv"
SIZES = "about 0.5 GB to download and 2 GB on disk, a minute or two on a fast connection"


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
    print(f"installing pinned packages with {', '.join(extras)}: {SIZES}", flush=True)
    source = f"{ROOT}[{','.join(extras)}]"
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    command = [*pip, "--constraint", str(ROOT / "constraints.txt"), "--editable", source]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as installing:
        for line in installing.stdout or ():
            if step := step_of(line):
                print(f"  {step}", flush=True)
    if installing.returncode:
        sys.exit("pip could not install the pinned packages; its message stands above")
    stamp.write_text(wanted.hexdigest())
    return str(python)


def step_of(line: str) -> str:
    """What a line of pip says that takes long: a package of 10 MB or more, or the installation; else nothing."""
    if found := re.search(r"(Downloading|Using cached) ([^\s-]+)-\S+ \((\d{2,})(?:\.\d+)? MB\)", line):
        return f"{found[1].lower()} {Path(found[2]).name}, {found[3]} MB"
    return "unpacking all packages" if line.startswith("Installing collected packages") else ""


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
