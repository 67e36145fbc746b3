"""What clients can call: HTTP, SSE and WebSocket. Tornado lives here; what is owed to whom is decided in the hub.

Order of the files, each importing only earlier ones: sockets, buckets, addresses, refused_fields, refusals, rates, tls, certificates, keys,
jwks, credentials, resumption, authentication, belongings, parties, revision, roll, client_ids, watchers, services, validation, shapes,
origins, base, events, cloudevents, publish, codings, opening, sse, stream, messages, replies, conversation, websocket, tickets, renewals,
revocations, sessions, resources, outbox, payments, subscribe, channels, totals, broadcast, health, routes, application.
"""
