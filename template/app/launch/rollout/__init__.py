"""A candidate model, tried on real traffic before it replaces the proven one.

`canary`: a share of the callers' end users gets the candidate's answers, until it burns the error
budget faster than the proven model does.
`shadow`: a share of the answers is asked of the candidate too, afterwards, and only compared.
"""
