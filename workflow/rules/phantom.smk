# Made only when the data set in params.yaml is the phantom one.
rule phantom:
    output:
        PHANTOM_FILES,
    log:
        "logs/phantom.log",
    conda:
        "../envs/hsam.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=60,
    params:
        reads=reads("phantom"),
        code=code("phantom"),
        out=lambda wildcards, output: PHANTOM,
        cases=PARAMS.dataset.phantom.cases,
        seed=PARAMS.dataset.phantom.seed,
        size=PARAMS.dataset.phantom.size,
    shell:
        "hsam phantom --out {params.out} --cases {params.cases} --seed {params.seed}"
        " --size {params.size} 2>&1 | tee {log}"
