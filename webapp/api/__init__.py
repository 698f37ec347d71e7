"""The JSON routes, one module per resource; ``api.md``'s contract in code."""
