"""The policy: what may not be asked or said, what is hidden, and where the app abstains.

`rules` reads the user's file; `find` looks for what its rules name, `data` for personal data and
secrets; `screen` judges one request with them, its streamed answer too.
"""
