"""Names that parameters may take and where each is implemented; importing it imports none of them.

A new data set is one module in `pipeline/datasets/` and one line in `DATASETS`; the parameter's
allowed names, the schema and the help derive from it.
"""

# name -> "module:class"
DATASETS = {
    "phantom": "pipeline.datasets.phantom:Phantom",
    "synapse": "pipeline.datasets.synapse:Synapse",
    "la": "pipeline.datasets.la:LeftAtrium",
    "promise12": "pipeline.datasets.promise12:Promise12",
    "nnunet": "pipeline.datasets.nnunet:NnUNet",
    "nnunet_ts": "pipeline.datasets.nnunet:NnUNetTested",
    "dicom": "pipeline.datasets.dicom:Dicom",
    "pairs": "pipeline.datasets.pairs:Pairs",
}
# how organs that are empty on one side count (`pipeline/scoring/conventions.py`)
CONVENTIONS = ("paper", "strict", "nnunet", "both_empty_one")
