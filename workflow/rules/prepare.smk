rule prepare_case:
    input:
        raw=lambda wildcards: [str(path) for path in CASES[wildcards.case].files],
    output:
        "results/prepare/shards/{case}.parquet",
    log:
        "logs/prepare/{case}.log",
    conda:
        "../envs/hsam.yaml"
    resources:
        mem_mb=4000,
    params:
        reads=reads("prepare"),
        code=code("prepare"),
        file=params_file,
    shell:
        "hsam prepare --params {params.file:q} --case {wildcards.case:q} 2>&1 | tee {log:q}"


rule prepare:
    input:
        shards=expand("results/prepare/shards/{case}.parquet", case=CASES),
    output:
        manifest="results/prepare/manifest.parquet",
        provenance="results/prepare/provenance.json",
    log:
        "logs/prepare.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads()
    resources:
        mem_mb=4000,
    params:
        reads=reads("prepare"),
        code=code("prepare"),
        file=params_file,
    shell:
        "hsam prepare --params {params.file:q} --jobs {threads} 2>&1 | tee {log}"
