"""`uv run preview-update`: what an update would do to this project, before it does it.

The update is tried in a worktree of git's, a second folder of the same repository. The project's
own folder is read and never written to, however the trial ends.
"""
