"""The pages, one module per subject. A view reads, asks the engine, and renders."""
