shared = PARAMS.search.trials > 0 and PARAMS.search.workers > 1
WORKERS = range(1, PARAMS.search.workers + 1) if shared else []


# each is one of several that share the trials; `search` then gathers what they found
rule search_worker:
    input:
        shards=rules.prepare.output.shards,
        manifest=rules.prepare.output.manifest,
        split=rules.split.output.split,
    output:
        ended=temp(touch("results/search-workers/{worker}")),
    log:
        "logs/search-{worker}.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads()
    resources:
        mem_mb=growing(16000),
        runtime=1440,
        gpu=1,
    params:
        reads=reads("search"),
        code=code("search"),
        file=params_file,
    shell:
        "hsam search --params {params.file:q} --gpus {resources.gpu}"
        " --worker {wildcards.worker} 2>&1 | tee {log}"


rule search:
    input:
        shards=rules.prepare.output.shards,
        manifest=rules.prepare.output.manifest,
        split=rules.split.output.split,
        workers=expand(rules.search_worker.output.ended, worker=WORKERS),
    output:
        best="results/search/best.yaml",
        trials=report(
            "results/search/trials.csv",
            caption="../report/trials.rst",
            category="Search",
            labels={"table": "trials"},
        ),
        table="results/search/trials.parquet",
        importance="results/search/importance.csv",
        provenance="results/search/provenance.json",
    log:
        "logs/search.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads()
    resources:
        mem_mb=growing(16000),
        runtime=1440,
        gpu=1,
    params:
        reads=reads("search"),
        code=code("search"),
        file=params_file,
    shell:
        "hsam search --params {params.file:q} --gpus {resources.gpu} 2>&1 | tee {log}"
