"""House-keeping: runs, parameters, weights, raw data, this installation."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.given import parameters
from pipeline.cli.help import HOUSE
from pipeline.cli.options import (
    PARAMS,
    REPORTS,
    RESULTS,
    RUNS,
    WEIGHTS,
    FoundRunsOption,
    JobsOption,
    PageOption,
    ParamsOption,
    PublishedOption,
    output_file,
    output_folder,
)
from pipeline.core.errors import UserError


@command(HOUSE, "runs", "hsam runs rm synapse-hsam-2")
def list_runs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="rm RUN",
            help="rm RUN: remove runs and their evaluations; gc: remove what no run needs; "
            "name RUN NAME: give one another name; nothing: list all of them.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="List them for programs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    results: PublishedOption = RESULTS,
    runs: FoundRunsOption = RUNS,
    reports: PageOption = REPORTS,
) -> None:
    """List the trainings and imported models; name or remove them.

    What a process works in, and what is published, is never removed.
    """
    from pipeline.commands import runs as run_folders

    match words or []:
        case []:
            run_folders.show(runs, results, as_json)
        case ["rm", _, *_]:
            run_folders.remove([Path(word) for word in (words or [])[1:]], runs, results, yes)
        case ["gc"]:
            run_folders.clean(runs, results, reports, yes)
        case ["name", run, name]:
            run_folders.rename(Path(run), name, runs)
        case other:
            raise UserError(
                f"runs: expected rm RUN, gc, name RUN NAME or nothing, found {' '.join(other)}."
            )


@command(HOUSE, "new", "hsam new my-project --preset la-4")
def new(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="To make, or to add to.")],
    preset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="For its params.yaml: presets or parameter files."),
    ] = None,
) -> None:
    """Lay out a project, ready for snakemake and dvc."""
    from pipeline.commands import new as project
    from pipeline.studies import plan
    from pipeline.studies.files import preset_file

    project.run(folder, parameters([preset_file(name) for name in plan.parse_on(preset)]))


@command(HOUSE, "check", "hsam check --jobs 4 --out fingerprints.csv")
def check(
    params: ParamsOption = PARAMS,
    jobs: JobsOption = 1,
    out: Annotated[
        Path | None,
        output_file("Also write all of it, as .csv or .json."),
    ] = None,
) -> None:
    """Validate raw volumes; print each case's fingerprint."""
    from pipeline.datasets import check as checks

    checks.run(parameters(params), jobs, out)


@command(HOUSE, "params", "hsam params --params my.yaml --write params.yaml")
def show_params(
    params: ParamsOption = PARAMS,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
    write: Annotated[
        Path | None,
        output_file("Write here, with comments, instead of printing."),
    ] = None,
) -> None:
    """Check parameters; print them with each key's meaning.

    Without a file, the defaults.
    """
    from pipeline.core.params.render import render, schema_text

    nothing = params == PARAMS and not PARAMS[0].exists()
    text = schema_text() if schema else render(parameters([] if nothing else params))
    if write is None:
        typer.echo(text, nl=False)
    else:
        from pipeline.core import files

        files.write_text(write, text)


@command(HOUSE, "weights", "hsam weights get vit_b")
def weights(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="get NAME", help="Download the file of an encoder; nothing: list all of them."
        ),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Folder, or file, that has it: https, http, file.",
            show_default="where it was published",
        ),
    ] = None,
    to: Annotated[Path, output_folder("Where to download to.")] = WEIGHTS,
) -> None:
    """List the known files of weights, or download one.

    An interrupted download goes on where it was.
    """
    from pipeline.commands import weights as files

    match words or []:
        case []:
            files.show()
        case ["get", first, *others]:
            files.get([first, *others], mirror, to)
        case other:
            raise UserError(
                f"weights: expected get and names of encoders, found {' '.join(other)}."
            )


@command(HOUSE, "info", "hsam info --json")
def info(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what there is: models, encoders, weights, devices."""
    from pipeline.commands import info as facts

    facts.run(as_json)


@command(HOUSE, "doctor", "hsam doctor")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    results: PublishedOption = RESULTS,
    runs: FoundRunsOption = RUNS,
) -> None:
    """Look for what is wrong with this installation and machine.

    A line a check: ok, note (only some work needs it) or problem, and what to do. Exits with 1 if
    there is a problem.
    """
    from pipeline.commands import doctor as checks

    if not checks.run([results, runs], as_json):
        raise typer.Exit(1)


@command(HOUSE, "phantom", "hsam phantom --out data/raw/phantom --cases 20")
def phantom(
    out: Annotated[Path, output_folder("To fill, in the layout of Synapse.")],
    cases: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Volumes to make.")] = 20,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Seeds the anatomy and the noise.")
    ] = 1,
    size: Annotated[
        int, typer.Option(metavar="N", min=32, max=512, help="In-plane side, voxels.")
    ] = 128,
) -> None:
    """Make the phantom data: CT volumes with eight organs."""
    from pipeline.stages import phantom as stage

    stage.run(out, cases, seed, size)
