/* generator.c - N subscribers, SSE or WebSocket, in one thread and one epoll loop; loopback only.
 *
 * Connects, prints {"ready":...} once each client is subscribed, counts events (see counts.h), and obeys the lines on
 * its standard input until that ends:
 *   wait N M S  print a report, and count anew, once every client has N events since the last report and every slow
 *               one M, or when that can no longer happen, or after S seconds
 *   stall       the slow clients stop reading          resume      and read on
 * Latency is counted when the recv() that completed an event has returned, so this program's own queue is in it: a
 * "cpu_share" near 1 says that the generator was the limit.
 */
#define _GNU_SOURCE
#include "common.h"
#include "counts.h"
#include "stream.h"
#include <fcntl.h>
#include <sys/epoll.h>

enum { UNUSED_YET, CONNECTING, HANDSHAKE, OPEN, CLOSED };

struct client {
  int fd;
  uint8_t state;
  bool ready;
  uint32_t events; /* since the last report */
  struct expected expected;
  struct stream stream;
};

static int clients = 1, slow, port, topics = 1, sources = 1, in_flight_limit = 256;
static const char *path = "/", *slow_path, *message, *ready_text = "welcome";
static char **tokens;
static int token_count;

static struct client *client;
static int epoll, started, ready, in_flight, failed, closed, first_refusal;
static struct counts counts;
static char buffer[BUFFER], text[65536];
static uint64_t started_at, ready_at, received_at;

static struct { bool on; uint32_t events, slow_events; uint64_t until, done_at; int done; } waiting;

static int number_of(const struct client *c) { return (int)(c - client); }
static uint32_t wanted(const struct client *c) { return number_of(c) < slow ? waiting.slow_events : waiting.events; }

static void watch(struct client *c, int operation, uint32_t events) {
  struct epoll_event e = {.events = events, .data.ptr = c};
  if (epoll_ctl(epoll, operation, c->fd, &e)) die("epoll_ctl");
}

static void drop(struct client *c) {
  if (!c->ready) { in_flight--; failed++; }
  else closed++;
  close(c->fd);
  stream_free(&c->stream);
  c->state = CLOSED;
}

/* ---- connecting ---- */

/* %d stands for the client's topic. */
static int expand(char *out, size_t size, const char *template, const struct client *c) {
  const char *mark = strstr(template, "%d");
  if (!mark) return snprintf(out, size, "%s", template);
  return snprintf(out, size, "%.*s%d%s", (int)(mark - template), template, number_of(c) % topics, mark + 2);
}

static void connect_client(struct client *c) {
  int one = 1, host = 1 + number_of(c) % sources;
  struct sockaddr_in from = loopback(host, 0), to = loopback(1, port);
  started++;
  in_flight++;
  c->state = CONNECTING;
  if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) < 0) die("socket");
  send_at_once(c->fd);
  /* the port is chosen at connect(), where it only has to differ from others to the same server */
  setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  if (bind(c->fd, (void *)&from, sizeof from)) die("bind");
  watch(c, EPOLL_CTL_ADD, EPOLLOUT);
  if (connect(c->fd, (void *)&to, sizeof to) && errno != EINPROGRESS) drop(c);
}

static void request(struct client *c) {
  char where[4096];
  expand(where, sizeof where, slow_path && number_of(c) < slow ? slow_path : path, c);
  int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s", where, port,
                   message ? "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                           : "Accept: text/event-stream\r\n");
  if (token_count)
    n += snprintf(text + n, sizeof text - (size_t)n, "Authorization: Bearer %s\r\n",
                  tokens[number_of(c) % token_count]);
  n += snprintf(text + n, sizeof text - (size_t)n, "\r\n");
  if (n >= (int)sizeof text || send(c->fd, text, (size_t)n, 0) != n) { drop(c); return; }
  c->state = HANDSHAKE;
  watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

/* Clients mask what they send (RFC 6455, 5.3); what matters here is only that the mask is there. */
static bool send_frame(struct client *c, int opcode, const char *payload, size_t length) {
  uint8_t frame[4096] = {(uint8_t)(0x80 | opcode)}, mask[4] = {0x37, 0xfa, 0x21, 0x3d};
  size_t head = 2;
  if (length > sizeof frame - 16) return false;
  frame[1] = (uint8_t)(0x80 | (length < 126 ? length : 126));
  if (length >= 126) { frame[2] = (uint8_t)(length >> 8); frame[3] = (uint8_t)length; head = 4; }
  memcpy(frame + head, mask, 4);
  for (size_t i = 0; i < length; i++) frame[head + 4 + i] = (uint8_t)payload[i] ^ mask[i & 3];
  return send(c->fd, frame, head + 4 + length, 0) == (ssize_t)(head + 4 + length);
}

/* ---- receiving ---- */

static bool on_event(void *who, int opcode, const char *event, size_t length) {
  struct client *c = who;
  if (opcode == PING) return send_frame(c, PONG, event, length);
  if (opcode == CLOSE) return false;
  if (opcode == PONG) return true;
  if (!c->ready && memmem(event, length, ready_text, strlen(ready_text))) {
    c->ready = true;
    in_flight--;
    ready++;
  }
  if (count_event(&counts, &c->expected, event, length, received_at) && ++c->events == wanted(c) && waiting.on) {
    waiting.done++;
    waiting.done_at = received_at;
  }
  return true;
}

/* Reads the head of the answer in BUFFER..END and hands what follows to the stream. */
static bool handshake(struct client *c, size_t end) {
  char *rest = memmem(buffer, end, "\r\n\r\n", 4);
  int status = 0;
  if (!rest) { stream_keep(&c->stream, buffer, end); return true; }
  *rest = 0;
  if (sscanf(buffer, "HTTP/1.1 %d", &status) != 1 || status != (message ? 101 : 200)) {
    if (!first_refusal) first_refusal = status;
    return false;
  }
  c->stream.websocket = message != NULL;
  c->stream.chunked = strcasestr(buffer, "\r\ntransfer-encoding: chunked") != NULL;
  c->stream.kept_length = 0;
  c->state = OPEN;
  if (message && !send_frame(c, TEXT, text, (size_t)expand(text, sizeof text, message, c))) return false;
  rest += 4;
  end -= (size_t)(rest - buffer);
  memmove(buffer, rest, end);
  return stream_feed(&c->stream, buffer, 0, end, on_event, c);
}

static void receive(struct client *c) {
  size_t old = stream_restore(&c->stream, buffer);
  ssize_t n = recv(c->fd, buffer + old, RECEIVE, 0);
  if (n < 0 && errno == EAGAIN) return;
  received_at = now();
  counts.receives++;
  counts.bytes += n > 0 ? (size_t)n : 0;
  size_t end = old + (size_t)(n > 0 ? n : 0);
  bool open = c->state == HANDSHAKE ? handshake(c, end) : stream_feed(&c->stream, buffer, old, end, on_event, c);
  if (n <= 0 || !open) drop(c);
}

static void on_socket(struct client *c, uint32_t events) {
  if (c->state == CONNECTING) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) drop(c);
    else request(c);
  } else if (c->state != CLOSED) {
    if (events & EPOLLIN) receive(c);
    else if (events & (EPOLLERR | EPOLLHUP)) drop(c);
  }
}

/* ---- commands and reports ---- */

static void report(void) {
  uint32_t fewest = UINT32_MAX, most = 0;
  for (int i = 0; i < clients; i++) {
    if (client[i].events < fewest) fewest = client[i].events;
    if (client[i].events > most) most = client[i].events;
    client[i].events = 0;
  }
  bool complete = waiting.done == clients;
  printf("{\"clients\":%d,\"complete\":%d,\"done\":%d,\"closed\":%d,\"fewest\":%u,\"most\":%u,", clients, complete,
         waiting.done, closed, fewest, most);
  printf("\"all_done_seconds\":%.6f,", complete ? (double)(waiting.done_at - started_at) / 1e9 : -1);
  print_counts(&counts);
  printf("}\n");
  fflush(stdout);
  memset(&counts, 0, sizeof counts);
  waiting.on = false;
}

static void begin_waiting(unsigned events, unsigned slow_events, double seconds) {
  waiting.on = true;
  waiting.events = events;
  waiting.slow_events = slow_events;
  waiting.until = now() + (uint64_t)(seconds * 1e9);
  waiting.done = 0;
  waiting.done_at = counts.last ? counts.last : now();
  for (int i = 0; i < clients; i++) waiting.done += client[i].events >= wanted(&client[i]);
}

static void listen_to_slow_ones(bool yes) {
  for (int i = 0; i < slow; i++)
    if (client[i].state == OPEN) watch(&client[i], EPOLL_CTL_MOD, yes ? EPOLLIN : 0);
}

/* Lines are short and come one at a time from one writer, so a read holds whole lines. False at the end of input. */
static bool obey(void) {
  char lines[4096];
  ssize_t n = read(0, lines, sizeof lines - 1);
  if (n <= 0) return false;
  lines[n] = 0;
  for (char *rest = lines, *line; (line = strsep(&rest, "\n")) && *line;) {
    unsigned events, slow_events;
    double seconds;
    if (sscanf(line, "wait %u %u %lf", &events, &slow_events, &seconds) == 3)
      begin_waiting(events, slow_events, seconds);
    else if (!strcmp(line, "stall")) listen_to_slow_ones(false);
    else if (!strcmp(line, "resume")) listen_to_slow_ones(true);
    else die("not a command");
  }
  return true;
}

static void maybe_report_ready(void) {
  if (ready_at || started < clients || in_flight) return;
  ready_at = now();
  printf("{\"ready\":%d,\"failed\":%d,\"first_refusal\":%d,\"connect_seconds\":%.6f}\n", ready, failed, first_refusal,
         (double)(ready_at - started_at) / 1e9);
  fflush(stdout);
}

static void maybe_report(void) {
  if (!waiting.on || (now() < waiting.until && (!ready_at || waiting.done + closed + failed < clients))) return;
  report();
}

static void load_tokens(const char *file) {
  FILE *f = fopen(file, "r");
  char *line = NULL;
  size_t size = 0;
  if (!f) die(file);
  for (ssize_t n; (n = getline(&line, &size, f)) > 0;) {
    line[strcspn(line, "\r\n")] = 0;
    tokens = realloc(tokens, (size_t)(token_count + 1) * sizeof *tokens);
    tokens[token_count++] = strdup(line);
  }
  free(line);
  fclose(f);
}

static const char usage[] =
    "generator -p PORT [-n CLIENTS] [-u PATH] [-m FIRST-WEBSOCKET-MESSAGE] [-y READY-TEXT] [-k TOPICS]\n"
    "  [-f TOKEN-FILE] [-s SLOW-CLIENTS] [-U PATH-OF-SLOW-ONES] [-a SOURCE-ADDRESSES] [-i CONNECTS-IN-FLIGHT]\n"
    "  -m makes the clients WebSocket ones; %d in a path or message is the client's number modulo TOPICS\n";

int main(int argc, char **argv) {
  int o;
  while ((o = getopt(argc, argv, "p:n:u:m:y:k:s:U:f:a:i:")) != -1) switch (o) {
    case 'p': port = (int)number(optarg); break;
    case 'n': clients = (int)number(optarg); break;
    case 'u': path = optarg; break;
    case 'm': message = optarg; break;
    case 'y': ready_text = optarg; break;
    case 'k': topics = (int)number(optarg); break;
    case 's': slow = (int)number(optarg); break;
    case 'U': slow_path = optarg; break;
    case 'f': load_tokens(optarg); break;
    case 'a': sources = (int)number(optarg); break;
    case 'i': in_flight_limit = (int)number(optarg); break;
    default: fputs(usage, stderr); return 2;
    }
  if (!port || !clients || !topics || !sources || slow > clients) { fputs(usage, stderr); return 2; }
  begin();
  if (!(client = calloc((size_t)clients, sizeof *client)) || (epoll = epoll_create1(EPOLL_CLOEXEC)) < 0) die("start");
  struct epoll_event commands = {.events = EPOLLIN, .data.ptr = NULL}, events[1024];
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &commands)) die("standard input must be a pipe");
  started_at = now();
  for (;;) {
    while (started < clients && in_flight < in_flight_limit) connect_client(&client[started]);
    maybe_report_ready();
    maybe_report();
    int n = epoll_wait(epoll, events, 1024, 20);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
      if (events[i].data.ptr) on_socket(events[i].data.ptr, events[i].events);
      else if (!obey()) return 0;
    }
  }
}
