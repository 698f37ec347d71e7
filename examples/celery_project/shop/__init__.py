"""A shop that has been using Celery: nothing in this package knows of Fairq."""
