rule train:
    input:
        shards=rules.prepare.output.shards,
        manifest=rules.prepare.output.manifest,
        split=rules.split.output.split,
        best=rules.search.output.best,
    output:
        description="results/train/model.json",
        weights="results/train/model.safetensors",
        history="results/train/history.csv",
        validation="results/train/validation.csv",
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
