"""The native REST API: one router file a room, found by web/app.py."""
