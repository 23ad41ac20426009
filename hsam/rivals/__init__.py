"""The models that H-SAM is compared with, one file each.

None of them is imported by H-SAM itself.
"""
