"""`relay check`: the guide's "validate credentials", one engine behind the command and the page."""
