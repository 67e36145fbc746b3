"""The log in MongoDB: one capped collection, appended to in groups, followed by one tailable cursor, read in pages.

Order of the files, each importing only earlier ones: errors, positions, entries, mongo, log, appender, follower, mongod,
data_directory, embedded.
"""
