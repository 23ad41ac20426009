rule train:
    input:
        shards=rules.prepare.output.shards,
        manifest=rules.prepare.output.manifest,
        split=rules.split.output.split,
        best=rules.search.output.best,
    output:
        description="results/train/model.json",
        weights="results/train/model.safetensors",
        history=report(
            "results/train/history.csv",
            caption="../report/history.rst",
            category="Training",
            labels={"table": "learning curve"},
        ),
        validation=report(
            "results/train/validation.csv",
            caption="../report/validation.rst",
            category="Training",
            labels={"table": "validation"},
        ),
        cost="results/train/cost.json",
        snapshots=directory("results/train/snapshots"),
        live=directory("results/train/dvclive"),
        provenance="results/train/provenance.json",
    log:
        "logs/train.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads(PARAMS.train.devices)
    resources:
        mem_mb=growing(16000),
        runtime=1440,
        gpu=PARAMS.train.devices,
    params:
        reads=reads("train"),
        code=code("train"),
        file=params_file,
    shell:
        "hsam train --params {params.file:q} --gpus {resources.gpu} 2>&1 | tee {log}"
