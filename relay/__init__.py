"""relay: plain SMTP in, Microsoft 365 with OAuth2 out, and nothing lost in between."""

__version__ = "0.1.0"
