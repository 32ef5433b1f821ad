"""The administrator's page: shows the relay, and offers the operator's verbs."""
