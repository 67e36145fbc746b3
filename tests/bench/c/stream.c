/* stream.c - see stream.h. Chunks are decoded in place: what comes out is never longer than what went in. */
#define _GNU_SOURCE
#include "stream.h"
#include "common.h"

enum { SIZE, REST_OF_LINE, DATA, END_OF_DATA, ENDED }; /* states of the chunk decoder (RFC 9112, 7.1) */

size_t stream_restore(struct stream *s, char *buffer) {
  if (s->kept_length) memcpy(buffer, s->kept, s->kept_length);
  return s->kept_length;
}

void stream_keep(struct stream *s, const char *text, size_t length) {
  if (length > BUFFER - RECEIVE) die("an event larger than 1 MiB");
  if (length > s->kept_size) {
    free(s->kept);
    s->kept_size = length * 2;
    if (!(s->kept = malloc(s->kept_size))) die("malloc");
  }
  if (length) memcpy(s->kept, text, length);
  s->kept_length = length;
}

void stream_free(struct stream *s) {
  free(s->kept);
  *s = (struct stream){0};
}

static int hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 32;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes OLD..END of BUFFER to where it stands and returns where the decoded bytes end. */
static size_t unchunk(struct stream *s, char *buffer, size_t old, size_t end) {
  size_t to = old, from = old;
  while (from < end && s->chunk != ENDED) switch (s->chunk) {
    case SIZE: {
      int digit = hex(buffer[from]);
      if (digit >= 0) { s->chunk_left = s->chunk_left * 16 + (uint64_t)digit; from++; }
      else s->chunk = REST_OF_LINE;
      break;
    }
    case REST_OF_LINE:
      if (buffer[from++] != '\n') break;
      s->chunk = s->chunk_left ? DATA : ENDED;
      break;
    case DATA: {
      size_t n = end - from < s->chunk_left ? end - from : (size_t)s->chunk_left;
      memmove(buffer + to, buffer + from, n);
      to += n;
      from += n;
      if (!(s->chunk_left -= n)) s->chunk = END_OF_DATA;
      break;
    }
    default:
      if (buffer[from++] == '\n') s->chunk = SIZE;
    }
  return to;
}

/* Blocks end with an empty line; Tailcast ends lines with LF only. */
static bool cut_blocks(struct stream *s, char *p, char *end, stream_event *event, void *who) {
  for (char *line = p, *lf; line < end && (lf = memchr(line, '\n', (size_t)(end - line))); line = lf + 1) {
    if (lf != line) continue;
    if (lf > p && !event(who, TEXT, p, (size_t)(lf - p))) return false;
    p = lf + 1;
  }
  stream_keep(s, p, (size_t)(end - p));
  return true;
}

/* Frames from a server are not masked (RFC 6455, 5.1) and Tailcast never fragments: both end the stream here. */
static bool cut_frames(struct stream *s, char *p, char *end, stream_event *event, void *who) {
  while (end - p >= 2) {
    const uint8_t *b = (const uint8_t *)p;
    size_t head = 2;
    uint64_t length = b[1];
    if (!(b[0] & 0x80) || (b[1] & 0x80)) return false;
    if (length >= 126) {
      int digits = length == 126 ? 2 : 8;
      head += (size_t)digits;
      if ((size_t)(end - p) < head) break;
      length = 0;
      for (int i = 0; i < digits; i++) length = length << 8 | b[2 + i];
    }
    if ((uint64_t)(end - p) < head + length) break;
    if (!event(who, b[0] & 15, p + head, (size_t)length)) return false;
    p += head + length;
  }
  stream_keep(s, p, (size_t)(end - p));
  return true;
}

bool stream_feed(struct stream *s, char *buffer, size_t old, size_t end, stream_event *event, void *who) {
  if (s->websocket) return cut_frames(s, buffer, buffer + end, event, who);
  if (s->chunked) end = unchunk(s, buffer, old, end);
  return cut_blocks(s, buffer, buffer + end, event, who) && s->chunk != ENDED;
}
