"""A day of mail in a minute: simulated time, a simulated Exchange that counts its own limits, a spool in memory."""
