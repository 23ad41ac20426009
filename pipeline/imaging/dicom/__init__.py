"""DICOM in and out: series, frames, pixel values, segmentations.

Only the readers and writers of `imaging` and `commands` come here.
"""
