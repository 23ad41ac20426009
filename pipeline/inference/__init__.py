"""A trained model applied to a volume: loading, prediction, test-time augmentation, probabilities.

Nothing here knows where a scan came from or how a label map is written, but for the parts that a
MONAI bundle is made of (`bundle_parts`): its runner has nobody else to do it.
"""
