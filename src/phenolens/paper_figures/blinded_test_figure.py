"""The assessment figure: how often synthetic cells pass as real in the study's blinded tests.

Lafarge et al. 2019, section 4.4.
"""

from matplotlib.figure import Figure

from phenolens.blinded_test.compute import assessments, results
from phenolens.blinded_test.database import AssessmentFile
from phenolens.blinded_test.figure import assessment
from phenolens.core.errors import InputError
from phenolens.paper_figures.config import FigureConfig
from phenolens.runs.catalogue import nearest_names
from phenolens.study import Study


def assessment_figure(study: Study, config: FigureConfig) -> Figure:
    """How often synthetic cells passed as real in the study's blinded tests, and real ones were called synthetic."""
    known = assessments(study)
    if not known:
        raise InputError(f"{study.folder}: no blinded assessment yet; run `phenolens assess {study.folder}` first")
    for name in config.assessments:
        if name not in known:
            raise InputError(f'no assessment "{name}"; {nearest_names(name, known)}')
    chosen = {name: known[name] for name in config.assessments or known}
    by_title = {f"{name} ({_shown(file)})": results(file) for name, file in chosen.items()}
    if not any(found.n_assessors for found in by_title.values()):
        raise InputError(
            f"{', '.join(chosen)}: nobody has answered yet; give assessors their codes: phenolens assess {study.folder}"
        )
    return assessment(by_title)


def _shown(file: AssessmentFile) -> str:
    """`VAE+`, or `VAE+, channels alone too`: published shares are of pictures with all channels together."""
    about = file.about()
    return f"{about['title']}{', channels alone too' if about['each_channel'] else ''}"
