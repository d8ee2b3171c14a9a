"""The commands for one who writes a model: a file to start from, and a look at it before it is trained."""

from __future__ import annotations

import inspect
from pathlib import Path

from . import starting_point
from .commands import build_model, load_data
from .config import construct
from .description import describe
from .options import Parser, find_model, has_guide, read_train
from .preflight import check as find_mistakes
from .program import seeded

FEW = 128  # data that a model is looked at with


def new(words: list[str]) -> int:
    """Write a commented model file that trains as it is."""
    parser = Parser(prog="pyrovae new", usage="pyrovae new FILE.py")
    parser.add_argument("file", help="the file to write, such as my_model.py")
    path = Path(parser.read(words)["file"])
    if path.suffix != ".py":
        raise ValueError(f"new expects a Python file such as my_model.py, got {str(path)!r}")
    if path.exists():
        raise ValueError(f"{str(path)!r} is there already and is left as it is; choose another name")
    if not path.parent.is_dir():
        raise ValueError(f"folder {str(path.parent)!r} does not exist; make it, or choose another")
    path.write_text(inspect.getsource(starting_point).replace("{file}", str(path)), encoding="utf-8")
    print(f"{path}: a model to change")
    print(f"train it with: pyrovae train {path}:{starting_point.Story.__name__}")
    return 0


def check(words: list[str]) -> int:
    """Print what a model is and what is wrong with it; the exit status is 1 where training could not be right."""
    settings = read_train(words, "check", lambda parser: None)
    data = load_data(settings)
    try:
        with seeded(settings["seed"]):
            vae = build_model(settings, data)
    except ValueError as error:  # no guide can be derived from a model with a mistake
        if has_guide(find_model(settings["model"])):
            raise
        print(error)
        return 1
    objective = construct(settings["objective"], "objective") if settings["objective"] else None
    findings = find_mistakes(vae, data, objective)
    if not any(finding.fatal for finding in findings):
        print(describe(vae, next(data.batches("train", FEW, shuffle=False))))
        print()
    for finding in findings:
        print(finding)
    if not findings:
        print("nothing found that is wrong")
    return 1 if any(finding.fatal for finding in findings) else 0
