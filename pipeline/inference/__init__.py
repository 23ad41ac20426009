"""A trained model over one volume: loading it, predicting slices, test-time views, probabilities.

Nothing here knows where a scan came from or how a label map is written.
"""
