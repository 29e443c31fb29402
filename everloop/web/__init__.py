"""The ASGI app: one layer of sign-in, project, limits and audit under everything."""
