"""What clients can call: HTTP, SSE and WebSocket. Tornado lives here; what is owed to whom is decided in the hub.

Order of the files, each importing only earlier ones: sockets, keys, jwks, credentials, services, base, events, cloudevents, publish,
stream, messages, conversation, websocket, health, routes, application.
"""
