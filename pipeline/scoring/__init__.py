"""From label volumes to numbers and tables: measures, conventions, intervals.

Nothing here draws.
"""
