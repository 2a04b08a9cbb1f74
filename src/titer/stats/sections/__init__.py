"""One module per section of statistics.json: each turns the evidence into a list of plain rows."""
