"""Volumes on disk and in space: formats, grids, orientation, intensity, resizing, label tables.

Nothing here knows a data set, a stage or a model.
"""
