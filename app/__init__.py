"""The dashboard: reads run folders, and loads a model only where a page answers for a recording."""
