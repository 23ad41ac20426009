"""Everything about weight files: SAM's, the published adapters' and the library's own.

No module elsewhere knows a foreign key or file layout.
"""
