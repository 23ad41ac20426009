"""The files between the stages: a shard a case, the manifest, the roles of the slices.

Nothing here knows how they are made or what is learned from them.
"""
