"""What the workflow engines run: one module a stage, each with `run(params, ...)`.

Stages exchange files, never imports; what two of them need lives in a room below.
"""
