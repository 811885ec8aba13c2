"""`phenolens run`: all steps, from a source folder to a report."""

from dataclasses import dataclass, field, replace

from phenolens import pipeline
from phenolens.core.progress import tell
from phenolens.pipeline import EmbedConfig, EvaluateConfig, ProfileConfig
from phenolens.printing import print_scores
from phenolens.readiness import ready_runs
from phenolens.report.compute import ReportConfig, write_report
from phenolens.training.config import ModelName, TrainConfig
from phenolens.training.monitor import check_can_watch
from phenolens.verbs import crop


@dataclass(frozen=True)
class Flags(crop.Flags):
    """What `phenolens run` takes: what `crop` does, and of each further step its own."""

    also: tuple[ModelName, ...] = ("pca",)  # models to train and score beside --model
    train: TrainConfig = field(default_factory=TrainConfig)
    profile: ProfileConfig = field(default_factory=ProfileConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    report: ReportConfig = field(default_factory=ReportConfig)


def act(flags: Flags) -> None:
    """Crop, train, embed, profile, evaluate, report; what is done already is kept."""
    check_can_watch(flags.train)
    study, store = crop.cropped(flags)
    pipeline.check_protocols(store, flags.evaluate)
    models = dict.fromkeys([flags.train.model, *flags.also])
    names = []
    for model in models:
        config = flags.train if model == flags.train.model else beside(flags.train, model, n_crops=len(store))
        name = pipeline.run_name(config)
        pipeline.train(study, config, name=name)
        pipeline.embed(study, name, EmbedConfig(device=config.device, threads=config.threads))
        pipeline.profile(study, name, flags.profile)
        names.append(name)
        tell(f"{name}: trained, embedded, profiled")
    pipeline.evaluate(study, ready_runs(study, "profiled"), flags.evaluate)
    print_scores(study.scores)
    write_report(study, replace(flags.report, run=flags.report.run or names[0]))
    tell(f"next: open the report in a browser, or phenolens explore {study.folder}")
    print(study.report_path.resolve())


def beside(config: TrainConfig, model: str, *, n_crops: int) -> TrainConfig:
    """The same training for another model, with its own beta and latent size; PCA of few crops has few components."""
    return config.of_model(
        model, **({"latent_size": max(n_crops // 2, 1)} if model == "pca" and n_crops <= 128 else {})
    )
