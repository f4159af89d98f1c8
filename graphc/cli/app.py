"""The commands and their options. Each body imports what it needs and hands over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PASSES = ("decompose", "fold", "simplify", "cse", "dce", "fuse")
STAGES = ("recorded", *PASSES, "program", "kernels", "llvm", "asm")
_CODES = (
    "Exit codes: 0 ok, 1 mismatch, 2 usage, 3 bad model file, 4 unsupported or out of memory, 5 missing extra, "
    "70 internal error."
)

Command = Callable[..., Any]
_FILE = click.Path(path_type=Path)
_model = click.argument("model", type=_FILE)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
_seed = click.option("--seed", default=0, show_default=True, help="Seed of random inputs.")


def _inputs(command: Command) -> Command:
    command = click.option("--inputs", "archive", type=_FILE, help="A .npz file with one array an input.")(command)
    spec = "An input: NAME=f32[8,1,8,8] is random, NAME=i64[8]:10 has values 0..9, NAME=0.5 is a number, NAME=FILE.npy "
    spec += "reads an array. Repeatable."
    return click.option("--input", "specs", multiple=True, metavar="NAME=SPEC", help=spec)(command)


def _sizes(command: Command) -> Command:
    text = "Number for a named size. Repeatable."
    return click.option("--size", "sizes", multiple=True, metavar="N=37", help=text)(command)


def _version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        from graphc.version import __version__

        click.echo(f"graphc {__version__}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_CODES)
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Print it.")
def app() -> None:
    """Trace a function to a model file, look at it, run it, check it."""


@app.command()
@click.argument("target", metavar="SCRIPT.py:FUNCTION")
@click.option("-o", "--output", type=_FILE, required=True, help="The model file to write.")
@click.option("--dynamic", multiple=True, metavar="NAME:AXIS=N", help="Name a size that may change. Repeatable.")
@_inputs
@_seed
@_json
def trace(**options: Any) -> int:
    """Record a call of a function or Module of a script and write it as a model file.

    The script is run, as Python runs it, but not as __main__.
    """
    from graphc.cli.trace import run

    return run(**options)


@app.command()
@_model
@click.option("--stage", type=click.Choice(STAGES), help="What to show; recorded where nothing else is asked for.")
@click.option("--after", type=click.Choice(PASSES), help="Show the graph after this pass.")
@click.option("--all", "show_all", is_flag=True, help="Show every stage.")
@click.option("--diff", nargs=2, type=click.Choice(STAGES), metavar="A B", help="Show what changed from stage A to B.")
@click.option("--lines", is_flag=True, help="Put the line of the user's program beside each node or kernel.")
@click.option("--target", default="", help="x86-64-v3, x86-64-v4 or aarch64 for llvm and asm; default: this machine.")
@_sizes
@_json
def show(stage: str | None, after: str | None, show_all: bool, diff: tuple[str, str] | None, **options: Any) -> int:
    """Show a model at any stage, from the recorded graph to assembly, or what a stage changed."""
    from graphc.cli.show import run, run_diff

    if sum((stage is not None, after is not None, show_all, diff is not None)) > 1:
        raise click.UsageError("--stage, --after, --all and --diff exclude each other")
    if diff is not None:
        return run_diff(diff, **options)
    return run(names=STAGES if show_all else (stage or after or "recorded",), **options)


@app.command(name="run")
@_model
@click.option("-o", "--output", type=_FILE, help="Write the outputs as a .npz file.")
@_inputs
@_sizes
@_seed
@_json
def run_model(**options: Any) -> int:
    """Run a model on given or random inputs. State in the file is not changed."""
    from graphc.cli.run import run

    return run(**options)


@app.command()
@_model
@_inputs
@_sizes
@_seed
@_json
def check(**options: Any) -> int:
    """Run a model in every way graphc knows and compare.

    Op by op, after each pass, compiled for each target with 1 and 2 threads: every bit must agree. The NumPy
    references and the kernel interpreter must agree closely. Names the first node that differs.
    """
    from graphc.cli.check import run

    return run(**options)


@app.command()
@_model
@click.option("--out", type=_FILE, help="Write the smallest part as a model file that shows the difference.")
@click.option("--threads", type=click.IntRange(1, 1024), default=2, show_default=True, help="Of the last stages.")
@_inputs
@_sizes
@_seed
@_json
def bisect(**options: Any) -> int:
    """Name the first stage of compilation that changes a bit.

    The model runs op by op, then with one stage more at a time: each pass, native code, fusion, memory, threads,
    targets. Where the result differs, the smallest part of the model that shows it is printed. Exit code 1 then.
    """
    from graphc.cli.bisect import run

    return run(**options)


@app.command()
@_model
@_sizes
@_json
def explain(**options: Any) -> int:
    """Tell what a model takes, keeps, gives and assumes, and what it costs."""
    from graphc.cli.explain import run

    return run(**options)


@app.command()
@_model
@click.option("--rounds", type=click.IntRange(1, 100_000), default=30, show_default=True, help="Timed rounds.")
@click.option("--threads", type=click.IntRange(1, 1024), multiple=True, help="Numbers of threads; default 1 and all.")
@click.option("--kernels", type=click.IntRange(0), default=10, show_default=True, help="Slowest kernels to list.")
@click.option("--trace", type=_FILE, help="Write some runs as a Chrome trace (for Perfetto).")
@_inputs
@_sizes
@_seed
@_json
def bench(**options: Any) -> int:
    """Time a model: loading, compiling, calls with their spread, and its slowest kernels."""
    from graphc.cli.bench import run

    return run(**options)


@app.command()
@click.option("--programs", type=click.IntRange(1), default=1000, show_default=True, help="How many programs.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="The seed of the first.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes at once; default: one a core.")
@click.option("--gradients", is_flag=True, help="Only programs with gradients; results are differentiated, too.")
@click.option("--deep", type=click.FloatRange(0, 1), default=0.0, show_default=True, metavar="SHARE",
              help="Share of the programs whose graphs are checked node by node, pass by pass.")  # fmt: skip
@click.option("--time-limit", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True,
              metavar="SECONDS", help="A program that takes longer hangs.")  # fmt: skip
@click.option("--out", type=_FILE, metavar="FOLDER", help="Write the programs of findings there.")
@click.option("--no-shrink", is_flag=True, help="Show programs as they are, not made small.")
@click.option("--max-findings", type=click.IntRange(1), default=20, show_default=True, help="Stop after so many.")
@_json
def fuzz(**options: Any) -> int:
    """Run random programs eagerly, compiled, repeated and reloaded, and compare every bit.

    Exit code 1 when anything differs, crashes or hangs. A finding is printed as a small program that runs by itself.
    """
    from graphc.cli.fuzz import run

    return run(**options)


@app.command()
@click.option("--clear", is_flag=True, help="Delete every entry.")
@click.option("--verify", is_flag=True, help="Check every entry and delete damaged ones.")
@_json
def cache(**options: Any) -> int:
    """Tell where the cache of compiled code lies and how large it is."""
    from graphc.cli.cache import run

    return run(**options)
