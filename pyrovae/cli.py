"""The command line: train, evaluate, generate, compare.

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
  compare [RUN | NAME | FILE.py:CLASS]   tightness, bias, signal-to-noise and cost of objectives on a model

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
        notes = "".join(f" {note}" for note in getattr(error, "__notes__", ()))
        hint = "" if expected else " (PYROVAE_TRACEBACK=1 shows where)"
        if not _leave():
            if expected:  # rank 0 has it as well
                return 2
            kind = f"another rank than 0: {kind}"
        print(f"pyrovae: {kind}{' '.join(str(error).split())}{notes}{hint}", file=sys.stderr)
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
    from . import commands
    from .config import nearest

    known = ("train", "evaluate", "generate", "compare")
    if name not in known:
        raise ValueError(f"unknown command {name!r}; {nearest(name, known)}")
    return getattr(commands, name)


def run() -> Any:
    """The console script."""
    sys.exit(main())
