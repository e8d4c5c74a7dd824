"""The command line: it parses, calls one library function, and prints. Data on stdout, talk on stderr.

Exit codes: 0 done, 2 usage, 3 input, 4 pool locked or mismatched, 5 interrupted (1: anything unforeseen).
"""

from __future__ import annotations

import logging
import signal
import sys

import typer

from curate.cli import benching, commands, exporting, looking, seeing, verifying
from curate.cli.app import app
from curate.cli.show import visible
from curate.errors import CurateError

__all__ = ["app", "benching", "commands", "exporting", "looking", "main", "seeing", "verifying"]
_INTERRUPTED = 5
_SIGINT = 130


def _terminate(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; named errors become one line on stderr and their exit code."""
    from curate_selectors.errors import SelectorError

    logging.basicConfig(format="curate: %(message)s", level=logging.WARNING, stream=sys.stderr)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)
    except (CurateError, SelectorError) as error:
        typer.echo(f"curate: {visible(str(error))}", err=True)
        sys.exit(getattr(error, "exit_code", 2))
    except (KeyboardInterrupt, typer.Abort):
        code = _SIGINT
    except Exception as error:
        # click's own errors (a missing option, a bad value) know how to show themselves
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    if code == _SIGINT:  # typer turns KeyboardInterrupt into this status
        typer.echo("curate: interrupted; what was committed stays, the same command resumes", err=True)
        sys.exit(_INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)
