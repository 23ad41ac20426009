"""The stages, one module each, and what they share; `pipeline.cli` is the command line."""
