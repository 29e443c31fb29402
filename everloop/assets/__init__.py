"""The kinds of asset, their aliases, gates' records and lineage edges: functions of a transaction."""
