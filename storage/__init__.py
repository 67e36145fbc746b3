"""The log in MongoDB: one capped collection, appended to in groups, followed by one tailable cursor, read in pages. And the state beside
it in ordinary collections: sessions, tickets, revocations, ownership, snapshots, shared keys.

Order of the files, each importing only earlier ones: errors, positions, entries, mongo, collection, batcher, keys, handed_out, sessions,
tickets, revoked, revocations, owned, ownership, streams, roll, leases, parts, derived, items, snapshots, state, capped, log, recent,
requests, doubt, appender, cursor, follower, mongod, data_directory, embedded.
"""
