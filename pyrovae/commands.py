"""What each command of the command line does, given its words."""

from __future__ import annotations

import inspect
import itertools
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import data as data_room
from . import evaluation, lab
from .config import class_path, construct
from .data import Dataset
from .evaluation import Evaluation, Fidelity
from .evaluation.arguments import check_count
from .guides import Amortised, Program, amortize
from .lab.contenders import USUAL, contenders, split_objectives
from .lab.evidence import check_reference
from .options import (
    COMPARE,
    EVENT_SHAPE,
    Parser,
    find_model,
    has_guide,
    model_options,
    read_compare,
    read_run,
    read_train,
)
from .program import densities, evaluating, home, seeded
from .program.compile import COMPILE, Compile
from .training import Fit, RunFolder, fit, load, save
from .training.launch import find_crew
from .training.settings import find_device

FIT = (
    "epochs",
    "batch_size",
    "learning_rate",
    "schedule",
    "clip",
    "patience",
    "seed",
    "device",
    "compile",
    "precision",
    "check",
)
SCALE = ("devices", "strategy", "nodes")


def train(words: list[str]) -> int:
    """Train, evaluate on held-out data, draw the figures, print the table."""
    settings = read_train(words)
    resume, particles = settings.pop("resume"), settings["test_particles"]
    if particles < 1:
        raise ValueError(f"train expects test_particles of at least 1, got {particles}")
    scale = {k: settings[k] for k in SCALE}
    crew = find_crew(settings["device"], **scale, seed=settings["seed"], words=["train", *words])
    folder = RunFolder(crew.first(lambda: _folder_of(settings, resume)))
    settings["run_dir"] = str(folder.path)
    data = crew.in_turn(lambda: load_data(settings))
    with seeded(settings["seed"]):
        vae = build_model(settings, data)
    objective = construct(settings["objective"], "objective") if settings["objective"] else None
    if crew.main:
        by = f", {crew.size} processes" if crew.size > 1 else ""
        print(f"{_name(settings)} on {data.name}: {_sizes(data)}; {_count(vae):,} parameters{by} -> {folder.path}")
        _print_guide(vae)
    kept = settings | {EVENT_SHAPE: list(data.event_shape)}
    options = {k: settings[k] for k in FIT} | scale
    run = fit(vae, data, objective, run_dir=folder.path, resume=resume, settings=kept, **options)
    if not crew.main:
        return 0
    if run.interrupted:
        print(f"stopped in epoch {len(run.rows) + 1}; what was finished is in {folder.path}")
        print(f"go on with: pyrovae train --resume --run_dir {folder.path}")
        figures(vae, data, run, folder)
        return 130
    try:
        held_out = next(s for s in ("test", "validation", "train") if data.size(s))
        report(vae, data, folder, particles, 0, held_out, run, settings["compile"])
        figures(vae, data, run, folder)
    except KeyboardInterrupt:
        print(f"\nstopped after the training; its figures: pyrovae evaluate {folder.path}")
        return 130
    print(f"run folder: {folder.path}")
    return 0


def _folder_of(settings: dict[str, Any], resume: bool) -> str:
    """The run folder that settings ask for, or a free one. Raises ValueError."""
    folder = RunFolder(settings["run_dir"] or _free_folder(settings))
    if folder.path.exists() and not folder.path.is_dir():
        raise ValueError(f"{str(folder.path)!r} is a file; choose another --run_dir")
    if folder.in_use() and not resume:
        raise ValueError(f"{str(folder.path)!r} already holds a run; add --resume, or choose another --run_dir")
    if resume:
        _same_data(settings, folder.read_config())
    return str(folder.path)


def evaluate(words: list[str]) -> int:
    """Evaluate a run's model on one of its splits."""

    def add(parser: Parser) -> None:
        parser.add_argument("--particles", type=int, default=5000, help="draws per datum")
        parser.add_argument("--split", choices=["test", "validation", "train"], default="test")
        parser.add_argument("--seed", type=int, default=0, help="of the draws")
        parser.add_argument("--device", default="auto")
        parser.add_argument("--compile", choices=COMPILE, default="auto", help="as in pyrovae train")

    settings = read_run("evaluate", words, add)
    folder = RunFolder(settings["run"])
    vae = load(folder.path).to(find_device(settings["device"]))
    data = load_data(folder.read_config())
    report(vae, data, folder, settings["particles"], settings["seed"], settings["split"], compile=settings["compile"])
    print(f"run folder: {folder.path}")
    return 0


def generate(words: list[str]) -> int:
    """Draw new data from a run's model: an array, and a picture where they are images."""

    def add(parser: Parser) -> None:
        parser.add_argument("--n", type=int, default=64, help="how many")
        parser.add_argument("--seed", type=int, default=0, help="of the draws")
        parser.add_argument("--mean", action="store_true", help="the mean of p(x|z) instead of a draw from it")
        parser.add_argument("--output", type=str | None, default=None, help="a .npy file (default: in the run folder)")
        parser.add_argument("--device", default="auto")

    import numpy as np

    settings = read_run("generate", words, add)
    folder = RunFolder(settings["run"])
    vae = load(folder.path).to(find_device(settings["device"]))
    config = folder.read_config()
    shape = config.get(EVENT_SHAPE)
    like = None if shape is None else torch.zeros(1, *shape)
    if config.get("labelled"):  # of the classes that training data have
        x = load_data(config).train
        like = x[~x[:, 0].isnan()]
    made = evaluation.generate(vae, settings["n"], settings["seed"], settings["mean"], like)
    output = Path(settings["output"] or folder.path / "generated.npy")
    if output.suffix != ".npy":
        raise ValueError(f"generate expects --output as a .npy file, got {str(output)!r}")
    output.parent.mkdir(parents=True, exist_ok=True)
    sites = made if isinstance(made, dict) else {"": made}
    for name, x in sites.items():
        path = output.with_stem(f"{output.stem}-{name}") if name else output
        np.save(path, x.cpu().numpy())
        print(f"{path}: {list(x.shape)}")
        if x.dim() == 4:
            from . import plots

            plots.images(x.cpu()).savefig(path.with_suffix(".png"))
            print(path.with_suffix(".png"))
    return 0


def explore(words: list[str]) -> int:
    """Write a page to play with a run's model: one file, for a browser."""

    def add(parser: Parser) -> None:
        parser.add_argument("--images", type=int, default=300, help="training images to show in the page")
        parser.add_argument(
            "--posteriors", type=int, default=24, help="of them with an exact posterior, of two latents"
        )
        parser.add_argument(
            "--site", type=str | None, default=None, help="the latent that moves (default: the largest)"
        )
        parser.add_argument("--seed", type=int, default=0, help="of the choice of images, and of draws")
        parser.add_argument(
            "--output", type=str | None, default=None, help="a file (default: explorer.html in the run)"
        )

    from .explorer import explore as page_of

    settings = read_run("explore", words, add)
    check_count("explore", "at least 1 image", "images", settings["images"])
    folder = RunFolder(settings["run"])
    config = folder.read_config()
    vae, data = load(folder.path), load_data(config)
    rows = torch.randperm(data.size("train"), generator=torch.Generator().manual_seed(settings["seed"]))
    x, labels = data.train, data.labels.get("train")
    if data.labelled:  # those whose label the model is told
        rows = rows[~x[rows, 0].isnan()]
    rows = rows[: settings["images"]].sort().values
    some = None if labels is None else labels[rows]
    options: dict[str, Any] = {key: settings[key] for key in ("posteriors", "site", "seed")}
    page = page_of(vae, x[rows], some, title=f"{_name(config)} on {data.name}", **options)
    path = page.save(settings["output"] or folder.path / "explorer.html")
    exact = f", {page.posteriors} of them with their exact posterior" if page.posteriors else ""
    print(
        f"{path}: {path.stat().st_size / 1e6:.2f} MB, {page.images} training images in it{exact}; open it in a browser"
    )
    return 0


def compare(words: list[str]) -> int:
    """Hold objectives against the truth, on a run's model or on one that is trained first; leave a report."""
    settings = read_compare(words)
    entrants = split_objectives(settings["objectives"]) if settings["objectives"] is not None else USUAL
    particles = [_whole_number("particles", k) for k in settings["particles"].split(",")]
    contenders(entrants, particles)  # what is wrong is told before anything is trained
    check_count("compare", "at least 2 draws", "draws", settings["draws"], 2)
    check_count("compare", "data_size of at least 1", "data_size", settings["data_size"])
    check_reference(settings["reference"])
    vae, data, folder = _trained(settings)
    x: Tensor | None = getattr(data, settings["split"])
    if x is None:
        raise ValueError(f"{data.name} has no {settings['split']} data to compare on; its splits: {_sizes(data)}")
    output = Path(settings["output"]) if settings["output"] else _free(folder / "compare")
    options: dict[str, Any] = {k: settings[k] for k in ("draws", "reference", "seed")}
    options["protocol"] = data.protocol | {"split": settings["split"], "run": str(folder)}
    table = lab.compare(vae, x[: settings["data_size"]], entrants, particles=particles, **options, folder=output)
    print(lab.summary(table))
    if table.attrs["interrupted"]:
        print(f"stopped; the rows that were done are in {output}")
        return 130
    print(f"report: {output / 'report.html'}")
    return 0 if table["failed"].eq("").any() else 1


def _trained(settings: dict[str, Any]) -> tuple[Any, Dataset, Path]:
    """The model of a run; or one that is built, trained for so many epochs, and left in a run folder of its own."""
    device = find_device(settings["device"])
    if settings["run"] is not None:
        folder = RunFolder(settings["run"])
        return load(folder.path).to(device), load_data(folder.read_config()), folder.path
    path = Path(settings["run_dir"] or _free_folder(settings))
    if RunFolder(path).in_use():
        raise ValueError(f"{str(path)!r} already holds a run; compare that (pyrovae compare {path}), or choose another")
    settings["run_dir"] = str(path)
    data = load_data(settings)
    with seeded(settings["seed"]):
        vae = build_model(settings, data)
    kept = {k: v for k, v in settings.items() if k not in COMPARE} | {EVENT_SHAPE: list(data.event_shape)}
    if settings["epochs"] == 0:
        save(vae, path, kept)
        print(f"{_name(settings)} on {data.name}, not trained -> {path}")
        return vae.to(device), data, path
    objective = construct(settings["objective"], "objective") if settings["objective"] else None
    print(f"{_name(settings)} on {data.name}, trained for {settings['epochs']} epochs first -> {path}")
    run = fit(vae, data, objective, run_dir=path, settings=kept, **{k: settings[k] for k in FIT})
    if run.interrupted:
        print(f"stopped in the training; go on with: pyrovae train --resume --run_dir {path}")
        raise KeyboardInterrupt
    return run.model, data, path


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"compare expects {name} as whole numbers between commas, got {text!r}") from error


def load_data(settings: dict[str, Any]) -> Dataset:
    """The data set that a run's settings name."""
    return data_room.load(
        settings["data"],
        binarise=settings["binarise"],
        validation=settings["validation"],
        root=settings["root"],
        seed=settings["data_seed"],
        missing=settings.get("missing", False),  # a run of before has none
        labelled=settings.get("labelled", False),
    )


def build_model(settings: dict[str, Any], data: Dataset) -> Any:
    """The model that settings name: its `build(data, ...)` where it has one, else its constructor, or a function.

    One without a guide gets one from `amortize`, and both are a Program.
    """
    story = find_model(settings["model"])
    options = {k: settings[k] for k in model_options(story) if settings.get(k) is not None}
    if inspect.isfunction(story):
        model = story
    elif hasattr(story, "build"):
        model = story.build(data, **options)
    else:
        model = construct({"class_path": class_path(story), "init_args": options})
    if has_guide(story):
        return model
    program = Program(model, amortize(model, data, **settings["guide"]))
    program.bear(next(data.batches("train", 100, shuffle=False)))
    return program


def report(
    vae: Any,
    data: Dataset,
    folder: RunFolder,
    particles: int,
    seed: int,
    split: str,
    run: Fit | None = None,
    compile: Compile = "auto",
) -> None:
    """Evaluate on a split, keep metrics.json, print the table."""
    x: Tensor | None = getattr(data, split)
    if x is None:
        raise ValueError(f"{data.name} has no {split} data to evaluate on; its splits: {_sizes(data)}")
    near = _fidelity(vae, x, seed)
    if near is not None and near.points:
        figures, rows, remark = _of_a_point(vae, near)
    else:
        figures, rows, remark = _of_a_posterior(evaluation.evaluate(vae, x, particles, seed, True, compile), near)
    metrics = {split: figures | {"protocol": data.protocol}}
    if run is None:
        metrics = folder.read_metrics() | metrics
    else:
        metrics["training"] = {"epochs": len(run.rows), "seconds": sum(r["seconds"] for r in run.rows)}
    folder.write_metrics(metrics)
    if run is not None:
        rows.append(("training", f"{metrics['training']['seconds']:.1f}", f"seconds, {len(run.rows)} epochs"))
    print(f"\n{data.name}, {split}: {len(x):,} data")
    if remark:
        print(f"  ({remark})")
    width = max(13, *(len(name) + 1 for name, _, _ in rows))
    for name, value, unit in rows:
        print(f"  {name:<{width}}{value:>10}  {unit}")


Rows = list[tuple[str, str, str]]  # what it is, its value, and its unit


def _of_a_posterior(ev: Evaluation, near: Fidelity | None) -> tuple[dict[str, Any], Rows, str]:
    """Figures, their table and a remark for a guide with a density."""
    figures = ev.to_dict() | ({} if near is None else near.to_dict())
    bits = ev.bits_per_dimension
    error = f"± {ev.log_evidence_mean_error:.2f} over the data,"
    first = "log predictive" if ev.global_latents else "log evidence"
    rows = [
        (first, f"{ev.log_evidence_mean:.2f}", f"nats per datum {error} {ev.particles:,} particles"),
        *([] if bits is None else [("bits per dimension", f"{bits:.3f}", f"of {ev.dimensions:,} dimensions")]),
        ("ELBO", f"{figures['elbo']:.2f}", "nats per datum"),
        ("rate", f"{figures['rate']:.2f}", "nats per datum: KL(q(z|x) ‖ p(z))"),
        ("distortion", f"{figures['distortion']:.2f}", "nats per datum: −E_q log p(x|z)"),
        ("active units", f"{ev.active_units}", f"of {ev.latent_units}"),
        *_squared_error(near),
    ]
    common = f"under q of {', '.join(ev.global_latents)}, which all data have in common" if ev.global_latents else ""
    return figures, rows, common


def _of_a_point(vae: Any, near: Fidelity) -> tuple[dict[str, Any], Rows, str]:
    """What can be told of a guide without a density, and why there is no more."""
    site = near.points[0]
    why = (
        f"no log evidence, ELBO or rate: the guide of {type(vae).__name__} has a point for {site!r}, no density "
        f"q({site} | x)"
    )
    distortion = float(near.distortion.mean())
    figures = near.to_dict() | {"distortion": distortion, "data": len(near.squared_error), "remark": why}
    rows = [*_squared_error(near), ("distortion", f"{distortion:.2f}", "nats per datum: −log p(x|z) at that point")]
    return figures, rows, why


def _squared_error(near: Fidelity | None) -> Rows:
    if near is None:
        return []
    error = f"± {near.standard_error:.2g} over the data, {near.per_dimension:.3g} per dimension"
    return [("squared error", f"{float(near.squared_error.mean()):.4g}", f"per datum {error}: of the mean of x")]


def _fidelity(vae: Any, x: Tensor, seed: int) -> Fidelity | None:
    """Squared errors; None for a model without, such as one of class labels alone."""
    try:
        return evaluation.fidelity(vae, x, seed)
    except Exception:  # a user's model may lack anything that it needs; the other figures are whole
        return None


def figures(vae: Any, data: Dataset, run: Fit, folder: RunFolder) -> None:
    """The pictures of a run folder; one that cannot be drawn for this model is said and left out."""
    from . import plots

    held_out = data.test if data.test is not None else data.train
    labels = data.labels.get("test" if data.test is not None else "train")
    near = _fidelity(vae, held_out[:2], 0)
    trained_on = "log p(x | z), z the guide's point" if near and near.points else None
    pictures = {
        "history": lambda: plots.history(run.rows, *filter(None, [trained_on])),
        "samples": lambda: plots.samples(vae, 64, like=held_out),
        "reconstructions": lambda: plots.reconstructions(vae, held_out[:12]),
        "latent_map": lambda: plots.latent_map(vae, held_out[:5000], None if labels is None else labels[:5000]),
        "traversal": lambda: plots.traversal(vae, held_out[:500], site=_largest_latent(vae, held_out[:1])),
        "interpolation": lambda: plots.interpolation(vae, held_out[:4], held_out[4:8]),
    }
    for name, draw in pictures.items():
        if name == "history" and not run.rows:
            continue
        try:
            draw().savefig(folder.figures / f"{name}.png")
        except Exception as error:  # a user's model may lack anything that a picture needs; the run is whole
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"figure {name} left out: {reason}", file=sys.stderr)


def _largest_latent(vae: Any, x: Tensor) -> str | None:
    """The name of the latent with most dimensions, of several that a datum has; what all data share is no walk."""
    codes = evaluation.encode(vae, x)
    if not isinstance(codes, dict):
        return None
    device, dtype = home(vae)
    with evaluating(vae), seeded(0, device):
        sites = densities(vae, x.to(device, dtype)).posterior
    local = [name for name in codes if sites[name].local]
    return max(local, key=lambda name: codes[name].numel()) if local else None


def _same_data(settings: dict[str, Any], before: dict[str, Any]) -> None:
    """Refuse to go on with other data: what was held out might be trained on. Raises ValueError."""
    for key in ("model", "data", "binarise", "missing", "labelled", "validation", "data_seed"):
        if settings[key] != before.get(key, settings[key]):
            raise ValueError(
                f"the run to resume has {key} {before[key]!r}, got {settings[key]!r}; leave it, or begin another run"
            )


def _free_folder(settings: dict[str, Any]) -> Path:
    return _free(Path("runs") / f"{_name(settings)}-{Path(settings['data']).stem}".lower())


def _name(settings: dict[str, Any]) -> str:
    return settings["model"].rpartition(":")[2]


def _print_guide(vae: Any) -> None:
    """Says what was derived, where a guide was."""
    for guide in vae.modules():
        if isinstance(guide, Amortised):
            print(f"guide derived from the model: {guide}")


def _free(path: Path) -> Path:
    """The path, or the first with a number behind it that is not there."""
    candidates = (path if n == 1 else path.with_name(f"{path.name}-{n}") for n in itertools.count(1))
    return next(p for p in candidates if not p.exists())


def _sizes(data: Dataset) -> str:
    return ", ".join(f"{data.size(s):,} {s}" for s in ("train", "validation", "test") if data.size(s))


def _count(vae: Any) -> int:
    return sum(p.numel() for p in vae.parameters())
