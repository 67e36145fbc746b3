/* publisher.c - publishes by POST, over -c connections with one request outstanding each; loopback only.
 *
 *   -p PORT   -f FILE whose first line is the token   -n N events at most   -t S seconds at most
 *   -r R      R events a second; without it, as fast as the connections go
 *   -g G      G events a request, as an array        -k K  event N goes to topic TOPIC.(N modulo K)
 *   -T TOPIC  (bench)                                -z Z  bytes of data an event (200)
 *   -s S      the connections are the sources S, S + 1, ...: what each publishes is numbered from 0 within each topic
 * An event is stamped when its request is made. Prints one JSON line.
 */
#define _GNU_SOURCE
#include "common.h"
#include <sys/epoll.h>

struct connection {
  int fd;
  bool busy;
  int events; /* in the request that is out */
  uint64_t sent_at;
  size_t got;
  char answer[65536];
};

static int port, connections = 1, topics = 1, batch = 1, source, epoll;
static long limit = 1, sequence, accepted, refused, errors, answers;
static int first_refusal;
static size_t size = 200;
static double rate, seconds = 60;
static const char *topic = "bench";
static char token[8192], body[1 << 21], out[(1 << 21) + 16384];
static uint32_t *latency; /* microseconds, one for each answer */

static struct connection *connection;
static long *published; /* by each connection to each topic */

static void dial(struct connection *c) {
  struct sockaddr_in to = loopback(1, port);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0) die("socket");
  if (connect(c->fd, (void *)&to, sizeof to)) die("connect");
  send_at_once(c->fd);
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl");
  c->busy = false;
  c->got = 0;
}

static void redial(struct connection *c) {
  if (++errors > 100) die("more than 100 errors");
  close(c->fd);
  dial(c);
}

static size_t write_event(char *o, const struct connection *c, uint64_t stamp) {
  long from = c - connection, to = sequence % topics;
  size_t n = (size_t)sprintf(o, "{\"topic\":\"%s", topic);
  if (topics > 1) n += (size_t)sprintf(o + n, ".%ld", to);
  n += (size_t)sprintf(o + n, "\",\"type\":\"bench\",\"audience\":[\"public\"],\"data\":");
  n += write_data(o + n, stamp, source + (int)from, published[from * topics + to]++, size);
  o[n++] = '}';
  return n;
}

/* Sends the next event, or the next batch. The sockets block: a server that takes no requests stops the publisher. */
static bool publish(struct connection *c) {
  uint64_t stamp = now();
  size_t n = 0, done = 0;
  if (batch > 1) body[n++] = '[';
  for (c->events = 0; c->events < batch && sequence < limit; c->events++, sequence++) {
    if (c->events) body[n++] = ',';
    n += write_event(body + n, c, stamp);
  }
  if (batch > 1) body[n++] = ']';
  size_t length = (size_t)sprintf(out,
                                  "POST /v1/events HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n"
                                  "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                                  port, token, n);
  memcpy(out + length, body, n);
  length += n;
  c->sent_at = stamp;
  c->got = 0;
  while (done < length) {
    ssize_t r = send(c->fd, out + done, length - done, 0);
    if (r <= 0) { redial(c); return false; }
    done += (size_t)r;
  }
  c->busy = true;
  return true;
}

/* The status once the answer is complete, 0 before. */
static int status_of(struct connection *c) {
  c->answer[c->got] = 0;
  char *end = strstr(c->answer, "\r\n\r\n"), *length = strcasestr(c->answer, "\r\ncontent-length:");
  if (!end) return 0;
  if (!length || length > end) die("an answer without Content-Length");
  if (c->got < (size_t)(end + 4 - c->answer) + strtoul(length + 17, NULL, 10)) return 0;
  return atoi(c->answer + 9);
}

/* Takes what came; returns whether the connection is free again. */
static bool receive(struct connection *c) {
  ssize_t n = recv(c->fd, c->answer + c->got, sizeof c->answer - 1 - c->got, 0);
  bool was_busy = c->busy;
  if (n <= 0) { redial(c); return was_busy; }
  c->got += (size_t)n;
  int status = was_busy ? status_of(c) : 0;
  if (!status) return false;
  latency[answers++] = (uint32_t)((now() - c->sent_at) / 1000);
  c->busy = false;
  if (status == 202) accepted += c->events;
  else if (!refused++) {
    first_refusal = status;
    fprintf(stderr, "%.400s\n", c->answer);
  }
  return true;
}

static int by_size(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

static void report(uint64_t start, uint64_t latest) {
  double took = (double)(now() - start) / 1e9;
  qsort(latency, (size_t)answers, sizeof *latency, by_size);
  printf("{\"events\":%ld,\"requests\":%ld,\"accepted\":%ld,\"refused\":%ld,\"first_refusal\":%d,\"errors\":%ld,",
         sequence, answers, accepted, refused, first_refusal, errors);
  printf("\"seconds\":%.6f,\"events_per_second\":%.1f,\"post_p50_ms\":%.3f,\"post_p99_ms\":%.3f,", took,
         (double)accepted / took, answers ? latency[answers / 2] / 1e3 : 0,
         answers ? latency[answers * 99 / 100] / 1e3 : 0);
  printf("\"latest_ms\":%.3f}\n", (double)latest / 1e6);
}

static void read_token(const char *file) {
  FILE *f = fopen(file, "r");
  if (!f || !fgets(token, sizeof token, f)) die(file);
  token[strcspn(token, "\r\n")] = 0;
  fclose(f);
}

int main(int argc, char **argv) {
  int o;
  while ((o = getopt(argc, argv, "p:f:n:t:r:c:g:k:T:s:z:")) != -1) switch (o) {
    case 'p': port = (int)number(optarg); break;
    case 'f': read_token(optarg); break;
    case 'n': limit = (long)number(optarg); break;
    case 't': seconds = number(optarg); break;
    case 'r': rate = number(optarg); break;
    case 'c': connections = (int)number(optarg); break;
    case 'g': batch = (int)number(optarg); break;
    case 'k': topics = (int)number(optarg); break;
    case 'T': topic = optarg; break;
    case 's': source = (int)number(optarg); break;
    case 'z': size = (size_t)number(optarg); break;
    default: return 2;
    }
  if (!port || !connections || !batch || !topics || (size + 256) * (size_t)batch > sizeof body) return 2;
  begin();
  epoll = epoll_create1(EPOLL_CLOEXEC);
  connection = calloc((size_t)connections, sizeof *connection);
  published = calloc((size_t)connections * (size_t)topics, sizeof *published);
  latency = malloc(((size_t)limit + 1) * sizeof *latency);
  if (epoll < 0 || !connection || !published || !latency) die("start");
  for (int i = 0; i < connections; i++) dial(&connection[i]);
  uint64_t start = now(), end = start + (uint64_t)(seconds * 1e9), last = end + 30 * SECOND, latest = 0;
  int busy = 0, next = 0;
  for (uint64_t t = start; t < last && (busy || (sequence < limit && t < end)); t = now()) {
    double pause = .05;
    while (sequence < limit && busy < connections && (t = now()) < end) {
      uint64_t due = rate > 0 ? start + (uint64_t)((double)sequence / rate * 1e9) : t;
      if (t < due) { pause = (double)(due - t) / 1e9; break; }
      if (t - due > latest) latest = t - due;
      while (connection[next].busy) next = (next + 1) % connections;
      busy += publish(&connection[next]);
    }
    struct epoll_event events[64];
    struct timespec timeout = {0, (long)((pause < .05 ? pause : .05) * 1e9)};
    int n = epoll_pwait2(epoll, events, 64, &timeout, NULL);
    for (int i = 0; i < n; i++) busy -= receive(events[i].data.ptr);
  }
  report(start, latest);
  return 0;
}
