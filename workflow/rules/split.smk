rule split:
    input:
        shards=rules.prepare.output.shards,
        manifest=rules.prepare.output.manifest,
        roles=[] if PARAMS.split.list is None else PARAMS.split.list,
    output:
        split="results/split/split.parquet",
        summary="results/split/split.json",
        cost="results/split/cost.json",
        provenance="results/split/provenance.json",
    log:
        "logs/split.log",
    conda:
        "../envs/hsam.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=30,
    params:
        reads=reads("split"),
        code=code("split"),
        file=params_file,
    shell:
        "hsam split --params {params.file:q} 2>&1 | tee {log}"
