"""What goes on for as long as a client listens: streams of changes, of log lines, waiting calls."""
