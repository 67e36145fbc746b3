"""What can be streamed: declarations of channels, one module for each family of users, and the few computations that these need. No I/O.

Order of the files, each importing only earlier ones: values, declaration, portfolio, valuation, payments, streams, monitoring, trading,
entities, families, validation, reference, demo.
"""
