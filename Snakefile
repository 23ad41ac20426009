# Raw volumes in, a report out. The includes read as the data flow.
from pathlib import Path

from snakemake.utils import min_version, validate

min_version("9.20")


# without one, say in another --directory, the packaged defaults count
if Path("params.yaml").exists():

    configfile: "params.yaml"


# first the check that lists every problem at once, then Snakemake's own of the whole parameters
include: "workflow/rules/common.smk"


config = PARAMS.model_dump(mode="json")
validate(config, "workflow/schemas/params.schema.json")


container: CONTAINER


rule all:
    default_target: True
    input:
        "reports/report.html",


include: "workflow/rules/phantom.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/fanout.smk"
include: "workflow/rules/studies.smk"
include: "workflow/rules/versions.smk"
