"""What lists find jobs by, apart from ``jobs``; changes where what a job says does."""

WORDS = """concat_ws(
    chr(10), moved.job_id, moved.description, array_to_string(moved.tags, chr(10))
)"""
"""All that a job says, of ``moved``, which must return ``jobs.*``."""
