"""The parquet files between the stages: one shard per case, the manifest, the roles of the slices.

Beside them: which cases are of one subject. Nothing here knows how they are made or what is learned
from them.
"""
