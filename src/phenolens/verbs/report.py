"""`phenolens report`: one page that shows what was found."""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from phenolens.core.progress import tell
from phenolens.report.compute import ReportConfig, write_report
from phenolens.study import Study


@dataclass(frozen=True)
class Flags:
    """What `phenolens report` takes."""

    study: Positional[Path]  # the study's folder
    report: ReportConfig = field(default_factory=ReportConfig)


def act(flags: Flags) -> None:
    """Write the report; its path is the last line."""
    study = Study.open(flags.study)
    write_report(study, flags.report)
    tell(f"next: open the report in a browser, or phenolens explore {study.folder}")
    print(study.report_path.resolve())
