/* stream.h - cuts what came into events: HTTP chunks, SSE blocks, WebSocket frames. Knows no socket. */
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECEIVE (256 * 1024)           /* bytes taken from a socket at once */
#define BUFFER (RECEIVE + 1024 * 1024) /* and room before them for an event that is not complete */

enum { TEXT = 1, CLOSE = 8, PING = 9, PONG = 10 }; /* WebSocket opcodes (RFC 6455, 11.8); an SSE block counts as TEXT */

struct stream {
  bool websocket, chunked;
  uint8_t chunk;       /* what the chunk decoder expects next */
  uint64_t chunk_left; /* bytes left in the current chunk */
  char *kept;          /* the beginning of an event whose end has not come */
  size_t kept_length, kept_size;
};

/* Called for every complete event; false ends the connection. */
typedef bool stream_event(void *who, int opcode, const char *text, size_t length);

/* Puts the kept bytes at the front of BUFFER and returns how many: the socket is then read behind them. */
size_t stream_restore(struct stream *s, char *buffer);

/* Keeps LENGTH bytes for the next time. */
void stream_keep(struct stream *s, const char *text, size_t length);

/* Takes BUFFER, of which the bytes before OLD were restored and those up to END are new; keeps what is incomplete.
 * False when the stream has ended, or broke the protocol. */
bool stream_feed(struct stream *s, char *buffer, size_t old, size_t end, stream_event *event, void *who);

void stream_free(struct stream *s);

#endif
