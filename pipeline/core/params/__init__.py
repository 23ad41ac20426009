"""The parameters: their models (`blocks`), reading and checking (`load`), writing (`render`).

No stage is imported here; a stage is given its block.
"""
