"""A candidate model, tried on real traffic before it replaces the proven one.

`canary`: a share of the callers' end users gets the candidate's answers, until it burns the error
budget faster than the proven model does.
"""
