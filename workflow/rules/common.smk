"""What the rules share: the parameters, the raw files of each case, the code of each stage."""

import base64
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML
from snakemake.exceptions import WorkflowError
from snakemake_interface_executor_plugins.settings import DeploymentMethod

from pipeline import datasets
from pipeline.core import files, sources
from pipeline.core.errors import UserError
from pipeline.datasets import phantom
from pipeline.datasets.batches import batches
from pipeline.core.params.blocks import READS, params_digest, stage_params
from pipeline.core.params.load import Layer, layers, load, resolve
from pipeline.core.params.render import render
from pipeline.shards.manifest import read_manifest
from pipeline.studies import plan
from pipeline.versioning import commits


def checked(function, *arguments):
    """A user's mistake as Snakemake's own kind of error, without a traceback."""
    try:
        return function(*arguments)
    except UserError as error:
        raise WorkflowError("\n" + "\n".join(error.problems)) from None


def typed(value):
    """--config's values as YAML means them; Snakemake hands the inner ones over as text."""
    if isinstance(value, Mapping):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return YAML(typ="safe", pure=True).load(value) if isinstance(value, str) else value


def parameters():
    """The packaged defaults, under params.yaml, --configfile's files and --config's values.

    Snakemake's own merge, `config`, doesn't know what a file stands on (`defaults: [paper, _self_]`).
    A module's parameters are what its `config:` says, or params.yaml.
    """
    settings, here = workflow.config_settings, Path.cwd()
    mine = {key: value for key, value in GIVEN.items() if key not in SETTINGS}
    if workflow.modifier.skip_configfile:
        return resolve([Layer("the module's config", mine)])
    paths = [Path("params.yaml")] if Path("params.yaml").exists() else []
    if MODULE:
        return load(paths)
    if settings.replace_workflow_config:
        paths = []
    for path in settings.configfiles:
        paths.append(path.relative_to(here) if path.is_relative_to(here) else path)
    found = [layer for path in paths for layer in layers(path)]
    return resolve([*found, Layer("--config", typed(mine))])


def written_params():
    """params.yaml, or where overlays say otherwise the file that `params_file` writes."""
    try:
        if load([Path("params.yaml")]) == PARAMS:
            return "params.yaml"
    except UserError:
        pass  # there is none, or --configfile mends it
    return str(Path("runs", "params", f"{params_digest(PARAMS)[:12]}.yaml"))


def params_file(wildcards, input):
    """What a command's --params names. Snakemake does not compare a parameter that is a function of
    `input` with the last run's: the values that the stage `reads` rerun it, not the file's name.

    The file is written where a command is about to read it: a dry run leaves nothing.
    """
    computes = workflow.executor_plugin is not None and not workflow.dryrun
    if computes and not Path(PARAMS_FILE).exists():
        files.write_text(Path(PARAMS_FILE), render(PARAMS))
    return PARAMS_FILE


def raw_files(batch):
    """The raw files of a batch of cases."""
    if batch not in BATCHES:
        raise WorkflowError(f"batch {batch}: there are {', '.join(BATCHES)} (prepare.batch).")
    return [str(path) for raw in BATCHES[batch] for path in raw.files]


def restored():
    """Of the stages whose outputs Snakemake has no record of, those that DVC vouches for, and those
    that it finds changed.

    Snakemake would go by the files' times, which are those of `dvc pull`; DVC knows the content.
    """
    first = {stage: f"results/{stage}/provenance.json" for stage in READS}
    first |= {"phantom": PHANTOM_FILES[0], "report": "reports/report.html"}
    forgotten = {
        stage: path for stage, path in first.items() if Path(path).exists() and not remembered(path)
    }
    if MODULE or not workflow.is_main_process or not forgotten or not Path("dvc.lock").exists():
        return set(), set()
    try:
        written = load([Path("params.yaml")])
    except UserError:
        return set(), set()
    found = commits.states(PARAMS, written, Path.cwd())
    kept = {stage for stage in forgotten if found.get(stage)}
    changed = {stage for stage in forgotten if found.get(stage) is False}
    return kept, changed


def remembered(path):
    """Whether Snakemake has recorded how a file was made."""
    name = base64.urlsafe_b64encode(path.encode()).decode()
    return Path(".snakemake", "metadata", name).exists()


def raw_cases():
    """The raw files of each case; what was prepared and restored stands for them where they are absent."""
    if "prepare" in RESTORED and not Path(PARAMS.dataset.root).exists():
        rows = checked(read_manifest, Path("results/prepare/manifest.parquet")).rows
        return {
            row.case: datasets.RawCase(row.case, Path(PARAMS.dataset.root), None) for row in rows
        }
    checked(datasets.check_split, PARAMS)
    return checked(datasets.expected_files, PARAMS.dataset)


def reads(stage):
    """The parameters that a stage reads: their change reruns its rule."""
    return stage_params(PARAMS, stage)


def code(stage):
    """Digest of the code that a stage's results depend on: its change reruns the stage's rule."""
    return sources.stage_digest(stage, sources.chosen(stage, PARAMS))


def threads(devices=1):
    """Threads of a job on this many devices: `--config threads=N` each, else an equal share of
    `--cores` for every GPU of `--resources gpu=N`.

    Where no cores are told, as with `--dag` or `--unlock`, and on a cluster, where each node has cores
    of its own and must come to the same number as the scheduler was asked for, it is a constant.
    """
    devices = max(1, devices)
    given = GIVEN.get("threads")
    if given is not None:
        if not str(given).isdecimal() or int(given) < 1:
            raise WorkflowError(
                f"--config threads={given}: expected a whole number from 1 on; write threads=4."
            )
        return int(given) * devices
    cores, submits = workflow.resource_settings.cores, workflow.resource_settings.nodes is not None
    if cores is None or submits or workflow.remote_exec:
        return UNTOLD_THREADS * devices
    given = workflow.global_resources["gpu"].value if "gpu" in workflow.global_resources else 1
    gpus = max(1, int(given or 1))
    return max(1, cores * min(devices, gpus) // gpus)


def growing(mb, each_thread=0):
    """Memory for a scheduler, MB: more at every attempt, since one may have ended for want of it."""
    return lambda wildcards, threads, attempt: (mb + each_thread * threads) * attempt


# what --config sets beside parameters: `on`, what studies are run on, the threads of a device, and
# the container that jobs run in
SETTINGS = ("on", "threads", "container")
# threads of a device where nothing tells the cores
UNTOLD_THREADS = 8
MODULE = not workflow.modifier.is_main_snakefile()
# what was given: a module's `config:`, or --config, which is the outer workflow's where this is a module
if MODULE:
    GIVEN = config if workflow.modifier.skip_configfile else {}
else:
    GIVEN = workflow.config_settings.config
if workflow.modifier.path_modifier.prefix:
    raise WorkflowError(
        "module: `prefix` can't be used, since the stages work in results/, runs/ and reports/ of "
        "the working directory; leave it out, and name another folder with --directory."
    )
ON = plan.parse_on(GIVEN.get("on"))
PARAMS = checked(parameters)
PARAMS_FILE = written_params()
PHANTOM = "data/raw/phantom"
PHANTOM_FILES = [str(path) for path in phantom.paths(PHANTOM, PARAMS.dataset.phantom)]
RESTORED, CHANGED = restored()
CASES = raw_cases()
BATCHES = {} if "prepare" in RESTORED else batches(CASES, PARAMS.prepare.batch)

# what jobs run in with --software-deployment-method apptainer; docs/clusters.md makes one
CONTAINER = GIVEN.get("container", "hsam.sif")

# jobs find `hsam` also where no environment is activated; conda's and a container's bring their own
if not workflow.deployment_settings.deployment_method & {
    DeploymentMethod.CONDA,
    DeploymentMethod.APPTAINER,
}:
    binaries = shlex.quote(str(Path(sys.executable).parent))
    shell.prefix(f"set -euo pipefail; export PATH={binaries}:$PATH; ")


wildcard_constraints:
    batch=r"\d+-\d+",
