"""From shards to a trained model: reading, sampling, augmenting, stepping, keeping checkpoints.

Nothing here knows a raw data set, a report or a command line.
"""
