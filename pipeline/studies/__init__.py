"""Studies: many trainings that answer one question, as `workflow/studies/NAME.yaml` describes them.

What lives here: their files, their runs and places, what came out, intervals and verdicts, tables.
How a run is trained or scored does not: the stages do that, one run at a time.
"""
