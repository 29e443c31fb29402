"""The nouns as plain types, references, errors, settings, clock and ids. Imports nothing of ours and nothing heavy."""
