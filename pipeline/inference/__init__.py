"""A trained model applied to a volume: loading, prediction, test-time augmentation, probabilities.

Nothing here knows where a scan came from or how a label map is written.
"""
