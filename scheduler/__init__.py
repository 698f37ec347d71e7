"""The life of a job: its states, its tables, who goes next, and the loop that acts on it."""
