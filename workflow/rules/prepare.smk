# Each batch of cases by a job of its own; what is prepared is kept in runs/, where `prepare` finds it.
rule prepare_batch:
    input:
        raw=lambda wildcards: raw_files(wildcards.batch),
    output:
        "results/prepare/batches/{batch}.json",
    log:
        "logs/prepare/{batch}.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads()
    resources:
        mem_mb=growing(2000, each_thread=2000),
        runtime=240,
    params:
        reads=reads("prepare"),
        code=code("prepare"),
        file=params_file,
    shell:
        "hsam prepare --params {params.file:q} --batch {wildcards.batch} --jobs {threads}"
        " 2>&1 | tee {log}"


rule prepare:
    input:
        batches=[] if "prepare" in RESTORED else expand(rules.prepare_batch.output, batch=BATCHES),
    output:
        shards=expand("results/prepare/shards/{case}.parquet", case=CASES),
        manifest="results/prepare/manifest.parquet",
        cost="results/prepare/cost.json",
        provenance="results/prepare/provenance.json",
    log:
        "logs/prepare.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads()
    resources:
        mem_mb=growing(2000, each_thread=2000),
        runtime=240,
    params:
        reads=reads("prepare"),
        code=code("prepare"),
        file=params_file,
    shell:
        "hsam prepare --params {params.file:q} --jobs {threads} 2>&1 | tee {log}"
