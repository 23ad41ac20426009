# Many trainings side by side, and a report of all. Phantoms are made only for small twins.
rule study_phantoms:
    output:
        STUDIES.twin_files,
    log:
        "logs/phantoms.log",
    conda:
        "../envs/hsam.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=60,
    params:
        code=code("phantom"),
        twin=STUDIES.twin and STUDIES.twin.phantom.model_dump(),
        out=lambda wildcards, output: STUDIES.twin.root,
    shell:
        "hsam phantom --out {params.out:q} --cases {params.twin[cases]}"
        " --seed {params.twin[seed]} --size {params.twin[size]} 2>&1 | tee {log}"


rule study_prepare:
    input:
        lambda wildcards: checked(STUDIES.raw_files, data_run(wildcards)),
    output:
        manifest="results/data/{data}/prepare/manifest.parquet",
        shards=directory("results/data/{data}/prepare/shards"),
        cost="results/data/{data}/prepare/cost.json",
        provenance="results/data/{data}/prepare/provenance.json",
    log:
        "logs/data/{data}/prepare.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads()
    resources:
        mem_mb=growing(2000, each_thread=2000),
        runtime=240,
    params:
        code=code_of("prepare", data_run),
        command=command_of("prepare", data_run),
    shell:
        "{params.command} 2>&1 | tee {log:q}"


rule study_split:
    input:
        manifest="results/data/{data}/prepare/manifest.parquet",
        roles=lambda wildcards: split_run(wildcards).params.split.list or [],
    output:
        split="results/data/{data}/{split}/split.parquet",
        summary="results/data/{data}/{split}/split.json",
        cost="results/data/{data}/{split}/cost.json",
        provenance="results/data/{data}/{split}/provenance.json",
    log:
        "logs/data/{data}/{split}.log",
    conda:
        "../envs/hsam.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=30,
    params:
        code=code_of("split", split_run),
        command=command_of("split", split_run),
    shell:
        "{params.command} 2>&1 | tee {log:q}"


rule study_search:
    input:
        inputs_of("search"),
    output:
        best="results/{study}/{arm}/{run}/search/best.yaml",
        trials="results/{study}/{arm}/{run}/search/trials.csv",
        table="results/{study}/{arm}/{run}/search/trials.parquet",
        importance="results/{study}/{arm}/{run}/search/importance.csv",
        provenance="results/{study}/{arm}/{run}/search/provenance.json",
    log:
        "logs/{study}/{arm}/{run}/search.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads_of("search")
    resources:
        mem_mb=growing(16000),
        runtime=1440,
        gpu=gpus_of("search"),
    params:
        reads=reads_of("search"),
        code=code_of("search"),
        command=command_of("search"),
    shell:
        "{params.command} 2>&1 | tee {log:q}"


rule study_train:
    input:
        inputs_of("train"),
    output:
        description="results/{study}/{arm}/{run}/train/model.json",
        weights="results/{study}/{arm}/{run}/train/model.safetensors",
        history="results/{study}/{arm}/{run}/train/history.csv",
        validation="results/{study}/{arm}/{run}/train/validation.csv",
        cost="results/{study}/{arm}/{run}/train/cost.json",
        snapshots=directory("results/{study}/{arm}/{run}/train/snapshots"),
        live=directory("results/{study}/{arm}/{run}/train/dvclive"),
        provenance="results/{study}/{arm}/{run}/train/provenance.json",
    log:
        "logs/{study}/{arm}/{run}/train.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads_of("train")
    resources:
        mem_mb=growing(16000),
        runtime=1440,
        gpu=gpus_of("train"),
    params:
        reads=reads_of("train"),
        code=code_of("train"),
        command=command_of("train"),
    shell:
        "{params.command} 2>&1 | tee {log:q}"


rule study_evaluate:
    input:
        inputs_of("evaluate"),
    output:
        metrics="results/{study}/{arm}/{run}/evaluate/metrics.json",
        headline="results/{study}/{arm}/{run}/evaluate/headline.json",
        cases="results/{study}/{arm}/{run}/evaluate/cases.parquet",
        organs="results/{study}/{arm}/{run}/evaluate/organs.parquet",
        stages="results/{study}/{arm}/{run}/evaluate/stages.parquet",
        predictions=directory("results/{study}/{arm}/{run}/evaluate/predictions"),
        provenance="results/{study}/{arm}/{run}/evaluate/provenance.json",
    log:
        "logs/{study}/{arm}/{run}/evaluate.log",
    conda:
        "../envs/hsam.yaml"
    threads: threads_of("evaluate")
    resources:
        mem_mb=growing(8000),
        runtime=480,
        gpu=gpus_of("evaluate"),
    params:
        reads=reads_of("evaluate"),
        code=code_of("evaluate"),
        command=command_of("evaluate"),
    shell:
        "{params.command} 2>&1 | tee {log:q}"


rule study_report:
    input:
        lambda wildcards: checked(STUDIES.report_inputs, wildcards.name),
    output:
        page=report(
            "reports/{name}.html",
            caption="../report/study.rst",
            category="Studies",
            subcategory="{name}",
            labels={"what": "the page"},
        ),
        tables=report(
            directory(f"results/{{name}}{plan.folder_of('', ON)}/tables"),
            patterns=["{table}.csv"],
            caption="../report/tables.rst",
            category="Studies",
            subcategory="{name}",
            labels={"what": "{table}"},
        ),
    log:
        "logs/reports/{name}.log",
    conda:
        "../envs/hsam.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=60,
    params:
        on=ON,
        code=sources.digest("pipeline.reporting.study_page"),
        given=" ".join(f"--on {shlex.quote(preset)}" for preset in ON),
    shell:
        "hsam study {wildcards.name} {params.given} --report {output.page:q} 2>&1 | tee {log:q}"


wildcard_constraints:
    name="|".join(STUDIES.studies),
    study="|".join(STUDIES.folders),
    arm=r"[a-z0-9][a-z0-9_-]*",
    run=r"draw-\d+-seed-\d+(?:-fold-\d+)?",
    data=r"[a-z0-9_]+-[0-9a-f]{8}",
    split=r"draw-\d+-[0-9a-f]{8}",
