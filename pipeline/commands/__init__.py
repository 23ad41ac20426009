"""What a person runs beside the stages: predict, score, compare, figures, export, import.

No command imports a stage or another command.
"""
