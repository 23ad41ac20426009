rule split:
    input:
        shards=rules.prepare.input.shards,
        manifest=rules.prepare.output.manifest,
        roles=[] if PARAMS.split.list is None else PARAMS.split.list,
        code=sources("split"),
    output:
        split="results/split/split.parquet",
        summary="results/split/split.json",
        provenance="results/split/provenance.json",
    log:
        "logs/split.log",
    resources:
        mem_mb=1000,
    params:
        reads("split"),
    shell:
        "hsam split --params {PARAMS_FILE:q} 2>&1 | tee {log}"
