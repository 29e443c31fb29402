"""Other people's wire formats: translate and call."""
