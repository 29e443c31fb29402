"""Where state lives: records, objects, telemetry, vectors. Knows no HTTP and no rule of the rooms above."""
