"""At the end of a run `dvc.lock` and DVC's cache hold what was made, and studies' runs are rows of
`dvc exp show`. What needs DVC's lock is done once, here, not by jobs side by side."""

import subprocess


def jobs_done(rule):
    """The rule's jobs in this call, unless one of them is left to do."""
    dag = workflow.dag
    jobs = [job for job in dag.jobs if job.rule.name == rule]
    left = [job for job in jobs if dag.needrun(job) and not dag.finished(job)]
    return [] if left else jobs


def keep_versions():
    """Commit the outputs of params.yaml's run, record runs of studies that have just ended."""
    stages = [stage for stage in READS if jobs_done(stage)]
    if stages and PARAMS_FILE != "params.yaml":
        print(
            "versions: dvc.lock stays as it is, since this run's parameters aren't those of params.yaml;"
            " `dvc exp apply` of its row restores it",
            file=sys.stderr,
        )
    elif stages:
        commits.commit(stages, PARAMS, Path.cwd())
    runs = [job for job in jobs_done("study_evaluate") if workflow.dag.finished(job)]
    runs = [run for run in (run_of(job.wildcards) for job in runs) if run.predictions is None]
    if runs and Path(".dvc").is_dir():
        names = [STUDIES.full_name(run) for run in runs]
        hsam = str(Path(sys.executable).with_name("hsam"))
        options = [word for preset in ON for word in ("--on", preset)]
        subprocess.run([hsam, "record", *sorted(names), *options], check=False)


def run_again(stage):
    """An input function that names no file, but has its rule run."""

    def no_files(wildcards):
        workflow.dag.forcerules.add(workflow.get_rule(stage))
        return []

    return no_files


for stage in RESTORED:
    for file in workflow.get_rule(stage).input:
        file._file = ancient(file._file)
for stage in CHANGED:
    workflow.get_rule(stage).set_input(changed=run_again(stage))


onsuccess:
    keep_versions()
