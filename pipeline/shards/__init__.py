"""The parquet files between the stages: one shard per case, the manifest, the roles of the slices.

Nothing here knows how they are made or what is learned from them.
"""
