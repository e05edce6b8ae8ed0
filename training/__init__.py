"""How the shipped miniatures were made: a plan in; weights, curves and a report out. Not installed."""
