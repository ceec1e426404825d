"""Reports of finished runs and grids, as one HTML page or as Markdown."""
