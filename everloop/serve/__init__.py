"""An endpoint is a callable made of wrappers."""
