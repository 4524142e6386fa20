"""The command ``repro``: list, run, new, overnight, status, show, open, record, report, cite, doctor, data, weights."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from repro.cli.options import parser
from repro.cli.terminal import use_plain_characters
from repro.engine.store import figures_root
from repro.errors import RecordError, RunError, StoppedError, UsageError
from repro.records import PRECISIONS

__all__ = ["main", "parser"]

# Command to the module below repro.cli and its function: imported when it is called, so that no command waits for what
# another one needs.
COMMANDS = {
    "": "list:welcome",
    "list": "list:list_artifacts",
    "run": "run:run",
    "new": "new:new_method",
    "overnight": "overnight:run_overnight",
    "status": "status:show_status",
    "show": "results:show",
    "open": "open:open_pages",
    "record": "record:record_runs",
    "report": "record:redraw",
    "cite": "cite:print_citations",
    "claims": "claims:print_claims",
    "doctor": "doctor:doctor",
    "data list": "data:list_datasets",
    "data fetch": "data:fetch_files",
    "data verify": "data:verify",
    "data build": "data_splits:build",
    "data show": "data_splits:show",
    "data card": "data:print_card",
    "data push": "data_push:push_dataset",
    "weights list": "weights:list_weights",
    "weights missing": "weights:list_missing",
    "weights pull": "weights:pull_weights",
    "weights verify": "weights:verify",
    "weights path": "weights:print_path",
    "weights ship": "weights_push:ship",
    "weights push": "weights_push:push_weights",
}


READING = ("claims", "list", "overnight", "report", "show", "status")  # commands that tell what is recorded
# What is said of a command that was interrupted: how the same command goes on, where it does.
CONTINUED = {
    **dict.fromkeys(("data fetch", "data build", "weights pull"), "; the same command continues"),
    **dict.fromkeys(("run", "overnight"), "; the same command continues from the last epochs, where there are any"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a failed run, 2 for a wrong call, 75 when stopped as asked, 130 by Ctrl-C."""
    use_plain_characters()
    options = parser().parse_args(arguments)
    words = [word for word in (options.command, getattr(options, "action", None)) if word]
    module, _, function = COMMANDS[" ".join(words)].partition(":")
    try:
        _check_figures(options)
        _check_precision(options)
        getattr(import_module(f"repro.cli.{module}"), function)(options)
    except UsageError as error:
        return _said(error, 2)
    except StoppedError as stopped:
        return _said(stopped, stopped.code)
    except KeyboardInterrupt:
        return _said(f"interrupted{CONTINUED.get(' '.join(words), '')}", 130)
    except BrokenPipeError:  # the reader of a pipe went away
        return 1
    except (RunError, RecordError, ValueError, OSError) as error:
        return _said(error, 1)
    return 0


def _check_figures(options: argparse.Namespace) -> None:
    """Refuses a folder of recorded material that is none, where everything in it would be said not to be run."""
    reads = options.command in READING or (options.command == "run" and options.method)
    given = getattr(options, "figures", None)
    if reads and given is not None and not given.is_dir():
        raise UsageError(f"there is no folder {given}")
    if reads and given is None and os.environ.get("REPRO_FIGURES") and not figures_root().is_dir():
        raise UsageError(f"there is no folder {figures_root()}, which REPRO_FIGURES names")


def _check_precision(options: argparse.Namespace) -> None:
    given, known = getattr(options, "precision", None), ("auto", *PRECISIONS)
    if given is not None and given not in known:
        raise UsageError(f"--precision is {given!r}, must be one of {', '.join(known)}")


def _said(what: object, code: int) -> int:
    print(f"repro: {' '.join(str(what).split())}", file=sys.stderr)
    return code
