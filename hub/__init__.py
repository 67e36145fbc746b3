"""The rules of the stream: who may hear what, in which order, and how a connection gets from its position to the head of the log.

Order of the files, each importing only earlier ones: errors, principal, subscriptions, frames, formats, compression, terms, gathering,
interest, connection, revocations, ownership, control, census, elsewhere, totals, roll, rights, router, window, feed, turns, pages,
starting, catchup, pace, fanout, keeper, hearing, folds, overlay, folding, snapshots, processing, hub. No sockets, no Tornado, no MongoDB:
the hub is given a log, a clock and sinks.
"""
