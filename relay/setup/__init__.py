"""`relay setup`: takes the guide's values, writes a configuration that fits, and says what to type where."""
