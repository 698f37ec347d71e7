"""The work: what kinds of jobs there are, and the Celery workers that run them."""
