rule search:
    input:
        shards=rules.prepare.output.shards,
        manifest=rules.prepare.output.manifest,
        split=rules.split.output.split,
    output:
        best="results/search/best.yaml",
        trials=report(
            "results/search/trials.csv",
            caption="../report/trials.rst",
            category="Search",
            labels={"table": "trials"},
        ),
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
