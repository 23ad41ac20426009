rule evaluate:
    input:
        shards=rules.prepare.output.shards,
        manifest=rules.prepare.output.manifest,
        split=rules.split.output.split,
        description=rules.train.output.description,
        weights=rules.train.output.weights,
    output:
        metrics="results/evaluate/metrics.json",
        cases="results/evaluate/cases.parquet",
        table=report(
            "results/evaluate/cases.csv",
            caption="../report/cases.rst",
            category="Evaluation",
        ),
        organs="results/evaluate/organs.parquet",
        organs_table="results/evaluate/organs.csv",
        stages="results/evaluate/stages.parquet",
        stages_table="results/evaluate/stages.csv",
        review="results/evaluate/review.parquet",
        review_table="results/evaluate/review.csv",
        predictions=directory("results/evaluate/predictions"),
        stage_predictions=directory("results/evaluate/stages"),
        provenance="results/evaluate/provenance.json",
    log:
        "logs/evaluate.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads()
    resources:
        mem_mb=8000,
        gpu=1,
    params:
        reads=reads("evaluate"),
        code=code("evaluate"),
        file=params_file,
    shell:
        "hsam evaluate --params {params.file:q} --gpus {resources.gpu} 2>&1 | tee {log}"
