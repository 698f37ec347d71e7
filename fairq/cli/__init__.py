"""The command line: ``fairq``. One module for the commands about one thing."""
