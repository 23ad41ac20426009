"""From results to pages and pictures.

Nothing here computes a score or runs a model.
"""
