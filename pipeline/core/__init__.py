"""What all rooms stand on: parameters, errors, files, the console, run folders, processes.

Nothing here knows an image, a model or a data set.
"""
