"""What the rules of studies ask of the run that their wildcards name."""

from pipeline.studies.fanout import Fanout

STUDIES = Fanout(ON)


def run_of(wildcards):
    """The run that wildcards name."""
    name = f"{wildcards.arm}/{wildcards.run}"
    return checked(STUDIES.run, wildcards.study, name)


def data_run(wildcards):
    """A run on these prepared volumes."""
    return checked(STUDIES.on_data, f"data/{wildcards.data}")


def split_run(wildcards):
    """A run on this split."""
    return checked(STUDIES.on_split, f"data/{wildcards.data}/{wildcards.split}")


def inputs_of(stage):
    """What a stage of a run waits for."""
    return lambda wildcards: checked(STUDIES.inputs, stage, run_of(wildcards))


def command_of(stage, find=run_of):
    """Its command; like `params_file` it is not compared with the last run's."""
    return lambda wildcards, input, threads, resources: STUDIES.command(
        stage, find(wildcards), threads, resources.get("gpu", 0)
    )


def reads_of(stage):
    """The parameters that it reads."""
    return lambda wildcards: STUDIES.reads(stage, run_of(wildcards))


def code_of(stage, find=run_of):
    """The code that it depends on."""
    return lambda wildcards: STUDIES.code(stage, find(wildcards))


def gpus_of(stage):
    """The GPUs that it needs."""
    return lambda wildcards: STUDIES.gpus(stage, run_of(wildcards))


def threads_of(stage):
    """Its threads: a small twin's model gains nothing from a second one."""
    if STUDIES.is_twin and GIVEN.get("threads") is None:
        return 1
    return lambda wildcards: threads(STUDIES.gpus(stage, run_of(wildcards)))
