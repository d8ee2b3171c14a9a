"""From words on the command line and in YAML to settings: which options there are follows the chosen model."""

from __future__ import annotations

import argparse
import inspect
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import torch.nn as nn
import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from . import likelihoods, objectives, posteriors, priors
from .config import class_path, find_class, load_class, load_story, nearest
from .data.sources import SOURCES
from .guides import amortize
from .training import RunFolder, fit
from .training.run_folder import ARCHITECTURE
from .training.schedules import SCHEDULES

PARTS = {  # option: (base class, package of its known classes, constructor arguments that the model fills in)
    "prior": (priors.Prior, "pyrovae.priors", {"latent", "event"}),
    "likelihood": (likelihoods.Likelihood, "pyrovae.likelihoods", {"network"}),
    "posterior": (posteriors.Posterior, "pyrovae.posteriors", {"network"}),
    "objective": (objectives.Objective, "pyrovae.objectives", set()),
}
HELP = {
    "prior": "p(z): a class",
    "likelihood": "p(x|z): a class",
    "posterior": "q(z|x): a class",
    "objective": "the bound to raise: a class (default: ELBO with kl=analytic)",
}
WORDS = {"likelihood": ("auto",), "posterior": ("exact", "ladder", "bottom_up")}  # what may stand for a class
DEFAULTS = {
    "prior": {"class_path": "StandardNormal"},
    "posterior": {"class_path": "DiagonalNormal"},
    "objective": {"class_path": "ELBO", "init_args": {"kl": "analytic"}},
}
_OF_TRAIN = {"schedule", "run_dir", "resume", "test_particles", "guide"}  # beside those of `fit` and of the data
EVENT_SHAPE = "event_shape"  # a key of config.yaml that tells of the data
NO_SETTINGS = (ARCHITECTURE, EVENT_SHAPE)


class Parser(ArgumentParser):
    """jsonargparse's parser; a mistake is one ValueError, with the nearest option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs = {"exit_on_error": False, "formatter_class": _Formatter, "allow_abbrev": False} | kwargs
        super().__init__(*args, **kwargs)

    def read(self, words: list[str]) -> dict[str, Any]:
        """The settings as plain data. Raises ValueError."""
        try:
            return plain(self.parse_args(words))
        except argparse.ArgumentError as error:
            raise ValueError(self._one_sentence(str(error))) from error

    def _one_sentence(self, message: str) -> str:
        message = " ".join(message.split())
        remedy = f"See `{self.prog} --help`."
        unknown = [w for w in message.split() if w.startswith("--")] if "nrecognized arguments" in message else []
        if unknown:
            known = [o for action in self._actions for o in action.option_strings if o.startswith("--")]
            return f"unknown option {unknown[0]!r}; {nearest(unknown[0].split('=')[0], known, remedy)}"
        message = re.sub(r"<class '(\w+)'>", r"\1", message).replace("Parser key", "option")
        message = re.sub(r": Expected a typing.Literal\[(.*?)\]. Got value: ", r" expects one of \1, got ", message)
        stray = re.search(r"class_path '([\w.]+)':.*Option '(\w+)' is not accepted", message)
        if stray:
            cls = load_class(stray[1])
            if stray[2] in (reasons := getattr(cls, "refused", {})):
                return f"{cls.__name__} has no {stray[2]}: {reasons[stray[2]]}"
            filled = {n for base, _, names in PARTS.values() if issubclass(cls, base) for n in names}
            known = [n for n in inspect.signature(cls.__init__).parameters if n not in filled | {"self"}]
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            return f"{cls.__name__} has no option {stray[2]!r}; {takes}. {remedy}"
        missing = re.search(r"option \"(\w+)\".*class_path '[\w.]*?(\w+)': .* are required: ([\w, ]+?) - ", message)
        if missing:
            names = ", ".join(f"--{missing[1]}.{name}" for name in missing[3].split(", "))
            return f"{missing[2]} needs {missing[3]}; give {names}. {remedy}"
        of_part = re.search(
            r"""class_path '([\w.]+)': option "(\w+)".* NestedArg\(key='\2', val='?(.*?)'?\)""", message
        )
        if of_part:
            cls = load_class(of_part[1])
            kind = get_type_hints(cls.__init__)[of_part[2]]
            meant = kind.__name__ if inspect.isclass(kind) else str(kind).replace("typing.", "")
            return f"{cls.__name__} expects {of_part[2]} as {meant}, got {of_part[3]}. {remedy}"
        key, given = re.search(r'option "([\w.]+)"', message), re.search(r"Given value: (\S+)", message)
        if key and given:  # one of several types: jsonargparse tells of each
            action = next((a for a in self._actions if a.dest == key[1]), None)
            meant = re.sub(r"typing\.", "", str(getattr(action, "_typehint", "another kind of value")))
            return f"option {key[1]!r} expects {meant}, got {given[1]}. {remedy}"
        wrong = re.search(r"Expected a (.+?)\. Got value: (.*?)\.?$", message)
        if key and wrong:  # of one type
            return f"option {key[1]!r} expects {wrong[1].rpartition('.')[2]}, got {wrong[2]}. {remedy}"
        return f"{message.rstrip('.')}. {remedy}"


class _Formatter(DefaultHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(110, int(os.environ.get("COLUMNS", 110))))


def plain(value: Any) -> Any:
    """A jsonargparse namespace as dicts."""
    return value.as_dict() if isinstance(value, Namespace) else value


def read_train(words: list[str], command: str = "train", add: Callable[[Parser], Any] | None = None) -> dict[str, Any]:
    """Settings of a command that builds a model: a first word that names it, options, and --config FILE.yaml.

    With --resume the settings of the run are the defaults. `add` adds options of the command's own. Raises ValueError.
    """
    words = list(words)
    given = [words.pop(0)] if words and not words[0].startswith("-") else []
    config = _configured(words)
    if given:
        config["model"] = given[0]
    cls = find_model(config.setdefault("model", "VAE"))
    for option in PARTS:
        named = _value(words, f"--{option}", take=True)
        known = config.get(option)
        path = known.get("class_path") if isinstance(known, dict) else known
        if named is not None and (path is None or _resolve(option, path) != _resolve(option, named)):
            config[option] = {"class_path": named}  # another class starts from its own defaults
        if config.get(option) in (None, "auto", {"class_path": "auto"}):
            config.pop(option, None)
            if any(w.startswith(f"--{option}.") and not w.startswith(f"--{option}.help") for w in words):
                config[option] = _default(cls, option)
    config = {k: _resolve(k, v) for k, v in config.items()}
    if has_guide(cls) and "guide" not in model_options(cls) and any(w.startswith("--guide.") for w in words):
        raise ValueError(
            f"{cls.__name__} has a guide of its own, and --guide options are those of a derived one; leave them out, "
            "or take its method guide away"
        )
    parser = train_parser(cls, [k for k, v in config.items() if k in PARTS and isinstance(v, str)], command)
    (add or _add_run)(parser)
    own = {n: p.annotation for n, p in inspect.signature(getattr(cls, "build", cls)).parameters.items()}
    several = [n for n, a in own.items() if "[int]" in str(a) or (n == "hidden" and a not in (int, "int"))]
    lists = ["--guide.hidden", *(f"--{n}" for n in several)]
    for i, word in enumerate(words[1:], 1):
        if words[i - 1] in lists and word.isdigit():
            words[i] = f"[{word}]"
    settings = parser.read([f"--config={yaml.safe_dump(config)}", *words])
    settings.pop("config", None)
    for option in PARTS:
        if isinstance(settings.get(option), dict):  # a user's class as FILE.py:Class, which can be read anywhere
            settings[option]["class_path"] = class_path(load_class(settings[option]["class_path"]))
    return {"model": _absolute(settings.pop("model"))} | settings | {"data": _absolute(settings["data"])}


def _default(cls: Any, option: str) -> dict[str, Any]:
    """The class whose options are given without its name. Raises ValueError where that depends on the data."""
    if option == "likelihood":
        raise ValueError("options of a likelihood need its class as well: --likelihood NAME")
    name = _own_default(cls, option)
    return DEFAULTS[option] if name is None else {"class_path": name}


def _own_default(cls: Any, option: str) -> str | None:
    """The name of the part that a model class takes where none is given; None where it does not say."""
    parameter = inspect.signature(getattr(cls, "build", cls)).parameters.get(option)
    return parameter.default if parameter is not None and isinstance(parameter.default, str) else None


def _absolute(name: str) -> str:
    """A file or folder by its full path, so that a run can be read from anywhere; other names as they are."""
    path, colon, rest = name.partition(":")
    return f"{Path(path).resolve()}{colon}{rest}" if name not in SOURCES and Path(path).exists() else name


def _configured(words: list[str]) -> dict[str, Any]:
    """The settings of --config FILE and of the run to --resume; takes --config out of the words."""
    config: dict[str, Any] = {}
    if "--resume" in words:
        folder = _value(words, "--run_dir")
        if folder is None:
            raise ValueError("--resume needs the run to go on with: --run_dir RUN")
        config |= RunFolder(folder).read_config()
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun says how many there are now
            config |= {"devices": None, "nodes": None}
    path = _value(words, "--config", take=True)
    if path is not None:
        if not Path(path).is_file():
            raise ValueError(f"config file {path!r} does not exist (looked in {Path.cwd()})")
        try:
            read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"config file {path!r} is not readable YAML: {error}") from error
        if not isinstance(read, dict):
            raise ValueError(f"config file {path!r} holds no settings; expected lines such as `latent: 20`")
        config |= read
    return {k: v for k, v in config.items() if k not in NO_SETTINGS}


def _value(words: list[str], option: str, take: bool = False) -> str | None:
    for i, word in enumerate(words):
        if word == option and i + 1 < len(words):
            value, span = words[i + 1], 2
        elif word.startswith(f"{option}="):
            value, span = word.partition("=")[2], 1
        else:
            continue
        if take:
            del words[i : i + span]
        return value
    return None


def find_model(name: str) -> Any:
    """A model class by name, or a class or plain function in a user's file. Raises ValueError."""
    if "." in name and inspect.isfunction(found := load_story(name)):
        _check_takes_x(name, found)
        return found
    cls = find_class(name, nn.Module, "pyrovae.models")
    if not callable(getattr(cls, "model", None)):
        raise ValueError(f"{name!r} expects a method model(self, x), p(x, z) in Pyro, and has none; write it")
    return cls


def _check_takes_x(name: str, function: Any) -> None:
    """Refuse a function that cannot be called with x alone. Raises ValueError."""
    signature = inspect.signature(function)
    try:
        signature.bind(None)
    except TypeError as error:
        raise ValueError(
            f"{name!r} expects a function of x alone, got {function.__name__}{signature}; give other arguments defaults"
        ) from error


def has_guide(story: Any) -> bool:
    """Whether a model class brings its guide; one is derived for others, and for plain functions."""
    return callable(getattr(story, "guide", None))


def _resolve(option: str, value: Any) -> Any:
    """Names of parts as full class paths, so that a wrong one is answered with the nearest match."""
    if option not in PARTS or value is None:
        return value
    for word in WORDS.get(option, ()):
        if value in (word, {"class_path": word}):
            return word
    base, package, _ = PARTS[option]
    if isinstance(value, str):
        cls = find_class(value, base, package)
        if cls is objectives.PyroELBO:
            raise ValueError("PyroELBO wraps an object of pyro.infer; give that to pv.fit(..., objective=...)")
        path = class_path(cls)  # but jsonargparse imports modules, and no files
        return {"class_path": f"{cls.__module__}.{cls.__qualname__}" if ".py:" in path else path}
    if isinstance(value, dict) and "class_path" in value:
        return value | _resolve(option, value["class_path"])
    raise ValueError(f"{option} expects a class name, or class_path and init_args, got {value!r}")


def train_parser(cls: Any, words: Sequence[str] = (), command: str = "train") -> Parser:
    """The options of building and training one model class: those of its `build`, or of its constructor.

    `words` are the parts that are given as a word in the place of a class.
    """
    told = (inspect.getdoc(cls) or "").splitlines()[0] if cls.__doc__ else ""
    parser = Parser(
        prog=f"pyrovae {command}",
        usage=f"pyrovae {command} [{'RUN | ' if command == 'compare' else ''}NAME | FILE.py:NAME] [options]",
        description=f"{command.capitalize()} {cls.__name__}: {told}",
    )
    parser.add_argument("--config", action="config", help="a YAML file of settings; options override it")
    parser.add_argument("--model", default="VAE", help="the model, which may also be the first word")
    _add_data(parser)
    names = model_options(cls)
    given = "vae data objective schedule optimizer run_dir resume progress settings measure"
    scale = "devices strategy nodes" if command == "compare" else ""
    skip: set[str | int] = {*given.split(), *scale.split()}
    usual = {a.dest for a in parser._actions} | (set(inspect.signature(fit).parameters) - skip) | _OF_TRAIN
    _check_own_names(cls, [n for n in names if n in usual])
    if inspect.isfunction(cls):
        pass
    elif hasattr(cls, "build"):
        parser.add_method_arguments(cls, "build", skip={"data", *PARTS}, fail_untyped=False)
    else:
        parser.add_class_arguments(cls, skip=set(PARTS), fail_untyped=False)
    if not has_guide(cls):
        parser.add_function_arguments(amortize, "guide", skip={"model", "x"})
    for option, (base, _, filled) in PARTS.items():
        if option in words and option in names:
            parser.add_argument(f"--{option}", type=str)
        elif option in names or option == "objective":
            default = {None: "", "auto": " (default: what the values of the data ask for)"}
            name = _own_default(cls, option)
            text = HELP[option] + default.get(name, f" (default: {name})")
            parser.add_subclass_arguments(base, option, as_group=False, skip=filled, metavar="NAME", help=text)
    parser.add_argument("--schedule", default="cosine", help=f"of the learning rate: {', '.join(SCHEDULES)}")
    parser.add_function_arguments(fit, skip=skip)
    parser.add_argument("--run_dir", type=str | None, default=None, help="the run folder (default: runs/MODEL-DATA)")
    return parser


def _check_own_names(cls: Any, taken: Sequence[str]) -> None:
    """Refuse a class with arguments that are options of every model. Raises ValueError."""
    if taken:
        raise ValueError(
            f"{cls.__name__} has an argument {taken[0]!r}, which is an option of every model; call it something else"
        )


def _add_run(parser: Parser) -> None:
    """What `pyrovae train` alone has."""
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last finished epoch in run_dir; more --epochs stretch the schedule",
    )
    parser.add_argument("--test_particles", type=int, default=1000, help="particles of the final evaluation")


def _add_data(parser: Parser) -> None:
    parser.add_argument("--data", default="digits", help="digits, mnist, fashion, ..., FILE.npz, FILE.npy or a folder")
    parser.add_argument("--binarise", type=str | None, default=None, help="static, dynamic or threshold")
    parser.add_argument(
        "--validation", type=int | float | None, default=None, help="training data held out: a number or a fraction"
    )
    parser.add_argument("--missing", type=bool, default=False, help="true: NaN in the data means not observed")
    parser.add_argument(
        "--labelled",
        type=bool | int,
        default=False,
        help="true: x begins with its label; a number: so many training data keep it",
    )
    parser.add_argument("--root", type=str | None, default=None, help="folder of the data (default: $PYROVAE_DATA)")
    parser.add_argument("--data_seed", type=int, default=0, help="of splits and fixed binarisation")


COMPARE = ("objectives", "particles", "draws", "data_size", "split", "reference", "output", "run")


def add_compare(parser: Parser) -> None:
    """What `pyrovae compare` has, about a run and about a model to be trained first."""
    parser.add_argument(
        "--objectives",
        type=str | None,
        default=None,
        metavar="LIST",
        help='between commas: "ELBO, IWAE(gradient=dreg), FILE.py:CLASS, pyro.infer.Trace_ELBO" (default: sixteen)',
    )
    parser.add_argument(
        "--particles", type=str, default="1,5,50", metavar="K,K", help="of every objective that takes any"
    )
    parser.add_argument("--draws", type=int, default=200, help="gradients of each objective")
    parser.add_argument("--data_size", type=int, default=32, metavar="B", help="data of the split, one batch")
    parser.add_argument("--split", choices=["test", "validation", "train"], default="test")
    parser.add_argument(
        "--reference",
        type=int | str,
        default="auto",
        help="log p(x): exact, ais (annealed importance sampling), a number of particles, or auto (what is possible)",
    )
    parser.add_argument("--output", type=str | None, default=None, help="a folder (default: compare in the run folder)")


def read_compare(words: list[str]) -> dict[str, Any]:
    """Settings of `pyrovae compare [RUN | NAME | FILE.py:CLASS]`; "run" is None without a run. Raises ValueError."""
    if words and not words[0].startswith("-") and RunFolder(words[0]).in_use():

        def add(parser: Parser) -> None:
            add_compare(parser)
            parser.add_argument("--seed", type=int, default=0, help="of the draws")
            parser.add_argument("--device", default="auto")

        return read_run("compare", words, add)

    def add_with_epochs(parser: Parser) -> None:
        add_compare(parser)
        parser.set_defaults({"epochs": 10})

    if words and ("/" in words[0] or Path(words[0]).is_dir()) and ".py" not in words[0]:
        RunFolder(words[0]).read_config()  # says what is missing
    return {"run": None} | read_train(words, "compare", add_with_epochs)


def read_run(command: str, words: list[str], add: Callable[[Parser], Any]) -> dict[str, Any]:
    """Settings of a command about a run: `pyrovae COMMAND RUN [options]`. Raises ValueError."""
    parser = Parser(prog=f"pyrovae {command}", usage=f"pyrovae {command} RUN [options]")
    parser.add_argument("run", help="a run folder")
    add(parser)
    return parser.read(words)


def model_options(cls: Any) -> list[str]:
    """Names of the options that a model class takes from the command line; a plain function takes none."""
    if inspect.isfunction(cls):
        return []
    parameters = inspect.signature(getattr(cls, "build", cls)).parameters.values()
    return [p.name for p in parameters if p.name not in ("data", "self") and p.kind is not p.VAR_KEYWORD]
