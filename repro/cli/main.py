"""The command ``repro``: list, run, new, overnight, status, show, open, record, report, cite, doctor, data, weights."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from repro.cli.options import parser
from repro.cli.terminal import use_plain_characters
from repro.errors import RecordError, RunError, StoppedError, UsageError

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, 1 for a failed run, 2 for a wrong call, 75 when stopped as asked, 130 by Ctrl-C."""
    use_plain_characters()
    options = parser().parse_args(arguments)
    words = [word for word in (options.command, getattr(options, "action", None)) if word]
    module, _, function = COMMANDS[" ".join(words)].partition(":")
    try:
        getattr(import_module(f"repro.cli.{module}"), function)(options)
    except UsageError as error:
        return _said(error, 2)
    except StoppedError as stopped:
        return _said(stopped, stopped.code)
    except KeyboardInterrupt:
        where = "" if options.command == "data" else " from the last epochs"
        return _said(f"interrupted; the same command continues{where}", 130)
    except BrokenPipeError:  # the reader of a pipe went away
        return 1
    except (RunError, RecordError, ValueError, OSError) as error:
        return _said(error, 1)
    return 0


def _said(what: object, code: int) -> int:
    print(f"repro: {' '.join(str(what).split())}", file=sys.stderr)
    return code
