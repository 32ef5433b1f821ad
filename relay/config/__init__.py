"""Configuration: file and environment to typed settings, every fault reported together (design section 3)."""
