"""The workflow around the model: one folder a room, arrows of imports from top to bottom.

See `docs/architecture.md` for what each room holds and may import.
"""
