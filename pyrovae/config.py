"""Where strings become objects, and objects become the plain text that rebuilds them."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch.nn as nn

_PLAIN = (str, int, float, bool, type(None))
_FILE = "__pyrovae_file__"  # marks a module that came from a user's file


class Configured:
    """A mixin that remembers the arguments an object was built with, so that `describe` can write them down."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" not in cls.__dict__:
            return
        init, signature = cls.__init__, inspect.signature(cls.__init__)

        @functools.wraps(init)
        def remember(self: Any, *args: Any, **kwargs: Any) -> None:
            if "_arguments" not in self.__dict__:  # the outermost constructor is the one the caller wrote
                bound = signature.bind(self, *args, **kwargs).arguments
                arguments = {k: v for k, v in bound.items() if k not in ("self", "kwargs")}
                object.__setattr__(self, "_arguments", arguments | bound.get("kwargs", {}))
            init(self, *args, **kwargs)

        cls.__init__ = remember


def nearest(name: str, known: Iterable[str], remedy: str | None = None) -> str:
    """The end of an error message about an unknown name: the nearest match, then all of them or another remedy."""
    known = sorted(known)
    match = difflib.get_close_matches(name.lower(), [k.lower() for k in known], n=1, cutoff=0.5)
    hint = next((f"did you mean {k!r}? " for k in known if match and k.lower() == match[0]), "")
    return hint + (remedy or f"Known: {', '.join(known)}.")


def load_class(path: str) -> type:
    """The class behind `package.module.Class` or `FILE.py:Class`; a file's own code is run.

    Raises ValueError where the file, the module or the class is not there, with the nearest match.
    """
    return _load(path, "a class", inspect.isclass)


def load_function(path: str) -> Callable[..., Any]:
    """The function behind `FILE.py:name` or `package.module.name`. Raises ValueError as `load_class`."""
    return _load(path, "a function", inspect.isfunction)


def load_story(path: str) -> Any:
    """The class or function behind `FILE.py:name`. Raises ValueError as `load_class`."""
    return _load(path, "a class or a function", lambda found: inspect.isclass(found) or inspect.isfunction(found))


def _load(path: str, what: str, is_one: Callable[[Any], bool]) -> Any:
    if ".py:" in path:
        file, _, name = path.rpartition(":")
        module = _load_file(Path(file))
    else:
        module_name, _, name = path.rpartition(".")
        try:
            module = importlib.import_module(module_name)
        except (ImportError, ValueError) as error:
            raise ValueError(f"cannot import {path!r}: {error}") from error
    found = getattr(module, name, None)
    if not is_one(found):
        package = module.__name__.partition(".")[0]
        known = [k for k, v in vars(module).items() if is_one(v) and v.__module__.startswith(package)]
        raise ValueError(f"{path!r} is not {what}; {nearest(name, known)}")
    return found


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise ValueError(f"model file {str(path)!r} does not exist (looked in {Path.cwd()})")
    path = path.resolve()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, _FILE, str(path))
    sys.modules[name] = module  # before it runs, as import does: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise ValueError(f"model file {str(path)!r} fails when it is run: {error!r}") from error
        raise
    return module


def class_path(cls: Any) -> str:
    """The inverse of `load_class` and `load_function`: dotted, or `FILE.py:Name` for a user's file or script."""
    module = sys.modules[cls.__module__]
    room = ".".join(cls.__module__.split(".")[:2])  # ours by the public name, which stays when files are split
    if cls.__module__.startswith("pyrovae.") and getattr(sys.modules[room], cls.__qualname__, None) is cls:
        return f"{room}.{cls.__qualname__}"
    file = getattr(module, _FILE, None) or (cls.__module__ == "__main__" and getattr(module, "__file__", None))
    return f"{file}:{cls.__qualname__}" if file else f"{cls.__module__}.{cls.__qualname__}"


def describe(value: Any, who: str = "model") -> Any:
    """Plain data that `construct` turns back into an equal object (its weights apart).

    Raises ValueError, naming the argument, for an object that does not know its own arguments.
    """
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple):
        return [describe(v, f"{who}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {k: describe(v, f"{who}.{k}") for k, v in value.items()}
    if inspect.isfunction(value) and "<" not in value.__qualname__:
        return {"function_path": class_path(value)}
    if "_arguments" not in getattr(value, "__dict__", {}):
        raise ValueError(
            f"{who} is a {type(value).__name__}, which pyrovae cannot rebuild from a config; build it inside a class "
            "of your own that takes plain arguments, or keep the code and load with pv.load(folder, into=...)"
        )
    arguments = {}
    for name, argument in value.__dict__["_arguments"].items():
        current = getattr(value, name, argument)  # a part swapped after construction is the one to write down
        part = current if isinstance(argument, nn.Module) and isinstance(current, nn.Module) else argument
        arguments[name] = describe(part, f"{who}.{name}")
    return {"class_path": class_path(type(value)), "init_args": arguments}


def construct(spec: Any, who: str = "model") -> Any:
    """The object that `describe` wrote down. Only torch modules are built, whatever a config may name.

    Raises ValueError for a class that is not one, or arguments that it does not take.
    """
    if isinstance(spec, list):
        return [construct(v, f"{who}[{i}]") for i, v in enumerate(spec)]
    if not isinstance(spec, dict):
        return spec
    if "function_path" in spec:
        return load_function(spec["function_path"])
    if "class_path" not in spec:
        return {k: construct(v, f"{who}.{k}") for k, v in spec.items()}
    cls = load_class(spec["class_path"])
    if not issubclass(cls, nn.Module):
        raise ValueError(f"{who} names {spec['class_path']!r}, which is not a torch module")
    arguments = {k: construct(v, f"{who}.{k}") for k, v in (spec.get("init_args") or {}).items()}
    try:
        built = cls(**arguments)
    except TypeError as error:
        raise ValueError(f"{who}: {spec['class_path']} does not take these arguments: {error}") from error
    built.__dict__.setdefault("_arguments", arguments)  # a class of a user's need not be Configured
    return built


def find_class(name: str, base: type, package: str) -> type:
    """The subclass of `base` called `name` in `package`, such as pyrovae.priors (or at a dotted path or FILE.py:Class).

    Raises ValueError with the nearest match.
    """
    module = importlib.import_module(package)
    known = {
        k: v
        for k, v in vars(module).items()
        if inspect.isclass(v) and issubclass(v, base) and v is not base and not inspect.isabstract(v)
    }
    if name in known:
        return known[name]
    kind = package.rpartition(".")[2].rstrip("s")
    if "." in name:
        cls = load_class(name)
        if not issubclass(cls, base):
            raise ValueError(f"{name!r} is no {kind}; its class must be a {class_path(base)}")
        return cls
    raise ValueError(f"unknown {kind} {name!r}; {nearest(name, known)}")
