"""What a person runs beside the stages: predict, score, compare, figures, export, import, push.

No command imports a stage or another command.
"""
