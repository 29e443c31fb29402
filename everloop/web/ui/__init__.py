"""UI pages: one router file a page group, found by web/app.py."""
