rule train:
    input:
        shards=rules.prepare.input.shards,
        manifest=rules.prepare.output.manifest,
        split=rules.split.output.split,
        best=rules.search.output.best,
        code=sources("train"),
    output:
        description="results/train/model.json",
        weights="results/train/model.safetensors",
        history="results/train/history.csv",
        provenance="results/train/provenance.json",
    log:
        "logs/train.log",
    threads: workflow.cores
    resources:
        mem_mb=16000,
        gpu=1,
    params:
        reads("train"),
    shell:
        "hsam train --params {PARAMS_FILE:q} --gpus {resources.gpu} 2>&1 | tee {log}"
