"""DICOM in and out: finding series, frames, pixel values, stacking slices, segmentations.

Only the readers and writers of `imaging` and `commands` come here.
"""
