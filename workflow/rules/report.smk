rule report:
    input:
        shards=rules.prepare.output.shards,
        manifest=rules.prepare.output.manifest,
        split=rules.split.output.split,
        search=[
            rules.search.output.trials,
            rules.search.output.best,
            rules.search.output.importance,
        ],
        train=[rules.train.output.history, rules.train.output.description],
        metrics=rules.evaluate.output.metrics,
        cases=rules.evaluate.output.cases,
        organs=rules.evaluate.output.organs,
        stages=rules.evaluate.output.stages,
        review=rules.evaluate.output.review,
        predictions=rules.evaluate.output.predictions,
        provenance=[
            rules.prepare.output.provenance,
            rules.split.output.provenance,
            rules.search.output.provenance,
            rules.train.output.provenance,
            rules.evaluate.output.provenance,
        ],
    output:
        report(
            "reports/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"table": "the whole run"},
        ),
    log:
        "logs/report.log",
    conda:
        "../envs/hsam.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        reads=reads("report"),
        code=code("report"),
        file=params_file,
    shell:
        "hsam report --params {params.file:q} 2>&1 | tee {log}"
