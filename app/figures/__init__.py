"""Data in, plotly figure out: pure functions that know nothing of the page round them."""
