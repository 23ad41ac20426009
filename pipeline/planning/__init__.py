"""From a folder of scans to parameters: what the voxels say, and what follows from it.

Nothing here trains, or knows how a stage works; the rules are pure functions of what was found.
"""
