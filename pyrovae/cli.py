"""The command line: train, evaluate, generate, explore, compare, new, check.

A bad word gets one sentence and exit status 2; no traceback reaches a user (PYROVAE_TRACEBACK=1 shows it).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

HELP = """\
usage: pyrovae COMMAND ...

Variational autoencoders written as probabilistic programs.

commands:
  train [NAME | FILE.py:CLASS]           train a model on data and leave a run folder
  evaluate RUN                           log evidence, ELBO, rate and distortion of a run's model
  generate RUN                           draw new data from a run's model
  explore RUN                            write a page to play with a run's model, for a browser
  compare [RUN | NAME | FILE.py:CLASS]   tightness, bias, signal-to-noise and cost of objectives on a model
  new FILE.py                            write a model of your own to start from
  check [NAME | FILE.py:CLASS]           a model as maths, and what is wrong with it before a step is run

A CLASS with a model(x) alone, or a plain function in its place, gets a guide that is derived from it.
`pyrovae COMMAND --help` shows a command's options; `pyrovae train FILE.py:CLASS --help` those of your own class.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 2 for bad input, 130 after Ctrl-C, 1 for a failure of the program."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        from . import __version__

        print(f"pyrovae {__version__}")
        return 0
    _listen()
    try:
        return _command(words[0])(words[1:])
    except KeyboardInterrupt:
        _leave()
        print("\npyrovae: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left, e.g. `| head`
        return 0
    except SystemExit as leave:
        return int(leave.code or 0)
    except Exception as error:
        if os.environ.get("PYROVAE_TRACEBACK"):
            raise
        expected = isinstance(error, ValueError | FileNotFoundError | PermissionError | FileExistsError)
        kind = "" if expected else f"{type(error).__name__}: "
        message = str(error).partition("\nTrace Shapes:")[0]  # Pyro's table, which makes no sense in one line
        notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
        hint = "" if expected else " (PYROVAE_TRACEBACK=1 shows where)"
        if not _leave():
            if expected:  # rank 0 has it as well
                return 2
            kind = f"another rank than 0: {kind}"
        print(f"pyrovae: {kind}{' '.join(message.split())}{notes}{hint}", file=sys.stderr)
        return 2 if expected else 1


def _leave() -> bool:
    """Ends the processes that this one has started. Whether this is the one that speaks for all."""
    launch = sys.modules.get("pyrovae.training.launch")  # not there before it is needed
    if launch is not None:
        launch.give_up()
    return _speaks()


def _speaks() -> bool:
    launch = sys.modules.get("pyrovae.training.launch")
    return launch is None or launch.speaks()


def _listen() -> None:
    """What the library has to say, a line each, on standard error, and once where several processes say it."""
    import logging

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if _speaks():
                print(record.getMessage(), file=sys.stderr)

    log = logging.getLogger("pyrovae")
    log.setLevel(logging.INFO)
    if not log.handlers:
        log.addHandler(Lines())


def _command(name: str) -> Callable[[list[str]], int]:
    import importlib

    from .config import nearest

    known = ("train", "evaluate", "generate", "explore", "compare", "new", "check")
    if name not in known:
        raise ValueError(f"unknown command {name!r}; {nearest(name, known)}")
    room = "authoring" if name in ("new", "check") else "commands"
    return getattr(importlib.import_module(f".{room}", __package__), name)


def run() -> Any:
    """The console script."""
    sys.exit(main())
