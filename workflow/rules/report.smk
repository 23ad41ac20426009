rule report:
    input:
        shards=rules.prepare.input.shards,
        manifest=rules.prepare.output.manifest,
        split=rules.split.output.split,
        trials=rules.search.output.trials,
        history=rules.train.output.history,
        metrics=rules.evaluate.output.metrics,
        cases=rules.evaluate.output.cases,
        predictions=rules.evaluate.output.predictions,
        code=sources("report"),
    output:
        report(
            "reports/report.html",
            caption="../report/report.rst",
            category="Report",
        ),
    log:
        "logs/report.log",
    resources:
        mem_mb=4000,
    params:
        reads("report"),
    shell:
        "hsam report --params {PARAMS_FILE:q} 2>&1 | tee {log}"
