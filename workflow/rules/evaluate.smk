rule evaluate:
    input:
        shards=rules.prepare.output.shards,
        manifest=rules.prepare.output.manifest,
        split=rules.split.output.split,
        description=rules.train.output.description,
        weights=rules.train.output.weights,
        history=rules.train.output.history,
        snapshots=rules.train.output.snapshots,
    output:
        headline="results/evaluate/headline.json",
        metrics="results/evaluate/metrics.json",
        cases="results/evaluate/cases.parquet",
        table=report(
            "results/evaluate/cases.csv",
            caption="../report/cases.rst",
            category="Scores",
            labels={"table": "cases and organs"},
        ),
        organs="results/evaluate/organs.parquet",
        organs_table=report(
            "results/evaluate/organs.csv",
            caption="../report/organs.rst",
            category="Scores",
            labels={"table": "organs"},
        ),
        stages="results/evaluate/stages.parquet",
        stages_table=report(
            "results/evaluate/stages.csv",
            caption="../report/stages.rst",
            category="Scores",
            labels={"table": "coarse and fine stage"},
        ),
        review="results/evaluate/review.parquet",
        review_table=report(
            "results/evaluate/review.csv",
            caption="../report/review.rst",
            category="Scores",
            labels={"table": "slices to look at"},
        ),
        audit="results/evaluate/audit.parquet",
        audit_table=report(
            "results/evaluate/audit.csv",
            caption="../report/audit.rst",
            category="Scores",
            labels={"table": "what choosing on the test set would gain"},
        ),
        calibration="results/evaluate/calibration.json",
        predicted_dice="results/evaluate/predicted_dice.parquet",
        predicted_dice_table=report(
            "results/evaluate/predicted_dice.csv",
            caption="../report/predicted_dice.rst",
            category="Scores",
            labels={"table": "predicted and true Dice"},
        ),
        cost="results/evaluate/cost.json",
        predictions=directory("results/evaluate/predictions"),
        stage_predictions=directory("results/evaluate/stages"),
        provenance="results/evaluate/provenance.json",
    log:
        "logs/evaluate.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads()
    resources:
        mem_mb=growing(8000),
        runtime=480,
        gpu=1,
    params:
        reads=reads("evaluate"),
        code=code("evaluate"),
        file=params_file,
    shell:
        "hsam evaluate --params {params.file:q} --gpus {resources.gpu} 2>&1 | tee {log}"
