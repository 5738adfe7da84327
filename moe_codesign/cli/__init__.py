"""The command line."""

import contextlib
import errno
import os
import signal
import sys

import click

from moe_codesign.cli.audit import audit
from moe_codesign.cli.bench import bench
from moe_codesign.cli.calibrate import calibrate
from moe_codesign.cli.compile import compile_
from moe_codesign.cli.frontier import frontier
from moe_codesign.cli.listing import list_
from moe_codesign.cli.lock_in import lock_in
from moe_codesign.cli.model import model
from moe_codesign.cli.predict import predict
from moe_codesign.cli.regress import regress
from moe_codesign.cli.report import report
from moe_codesign.cli.robust import robust
from moe_codesign.cli.search import search
from moe_codesign.cli.sweet_spots import sweet_spots
from moe_codesign.cli.three_layers import three_layers
from moe_codesign.errors import MachineError, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""A disk that is full or may not be written to."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="moe-codesign")
def cli() -> None:
    """Search the shape of a mixture-of-experts layer and the kernel that runs it together, for a given chip.

    Every time carries its grade: measured, simulated, modelled or datasheet.

    \b
    Example: moe-codesign search quickstart
    """


for _command in (
    search,
    lock_in,
    three_layers,
    robust,
    sweet_spots,
    frontier,
    audit,
    model,
    predict,
    calibrate,
    compile_,
    bench,
    regress,
    report,
    list_,
):
    cli.add_command(_command)


def _end_as_ctrl_c_does() -> None:
    """On a polite signal: processes are stopped, temporary folders removed, and a study is ready to be resumed."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # One that is ignored stays so, as under nohup; and handlers can be set in the main thread alone.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            with contextlib.suppress(ValueError):
                signal.signal(number, signal.default_int_handler)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit 0 done, 1 a check failed or the machine, 2 wrong use, 130 interrupted."""
    _end_as_ctrl_c_does()
    try:
        code = cli.main(arguments, prog_name="moe-codesign", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as error:
        click.echo(f"moe-codesign: {error}", err=True)
        sys.exit(2)
    except MachineError as error:
        click.echo(f"moe-codesign: {error}", err=True)
        sys.exit(1)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        click.echo(f"moe-codesign: {error.format_message()} (see --help)", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (head, less) left: not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        where = f" {error.filename}" if error.filename else ""
        click.echo(f"moe-codesign: cannot write{where} ({error.strerror}); make room and run it again", err=True)
        sys.exit(1)
