/* limit.c - the ceiling: a server that sends ready events to every socket in turn and does nothing else.
 *
 * Prints its port, accepts -n subscribers (any request is answered with an SSE stream and a `welcome`), then makes
 * -m events, each stamped and sent with one send() to every socket, and prints how long that took. Ends when its
 * standard input does.
 *   -j J  joins J events in one send      -k K  spreads the sockets over K topics, each event goes to one of them
 *   -r R  offers R events a second        -z Z  bytes of data an event        -c  HTTP chunks, as Tailcast sends them
 */
#define _GNU_SOURCE
#include "common.h"
#include <poll.h>

static int subscribers = 1000, joined = 1, topics = 1, chunked;
static long events = 1000;
static size_t size = 200;
static double rate;
static char out[1 << 20], text[1 << 20];

static size_t write_event(char *o, long n) {
  size_t length = (size_t)sprintf(text, "id: 1700000000000-%012ld\nevent: bench\ndata: ", n);
  length += write_data(text + length, now(), 0, n / topics, size);
  text[length++] = '\n';
  text[length++] = '\n';
  size_t head = chunked ? (size_t)sprintf(o, "%zx\r\n", length) : 0;
  memcpy(o + head, text, length);
  if (chunked) memcpy(o + head + length, "\r\n", 2);
  return head + length + (chunked ? 2 : 0);
}

static void answer(int fd) {
  static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n",
                    welcome[] = "event: welcome\ndata: {}\n\n";
  size_t got = 0;
  while (got < sizeof text - 1) {
    ssize_t r = recv(fd, text + got, sizeof text - 1 - got, 0);
    if (r <= 0) break;
    text[got += (size_t)r] = 0;
    if (strstr(text, "\r\n\r\n")) break;
  }
  const size_t length = sizeof welcome - 1;
  int n = chunked ? sprintf(text, "%sTransfer-Encoding: chunked\r\n\r\n%zx\r\n%s\r\n", head, length, welcome)
                  : sprintf(text, "%sConnection: close\r\n\r\n%s", head, welcome);
  if (send(fd, text, (size_t)n, 0) != n) die("answer");
}

static int accept_one(int listening, uint64_t until) {
  while (now() < until) {
    struct pollfd p = {listening, POLLIN, 0};
    if (poll(&p, 1, 1000) <= 0) continue;
    int fd = accept4(listening, 0, 0, SOCK_CLOEXEC);
    if (fd < 0) die("accept");
    send_at_once(fd);
    answer(fd);
    return fd;
  }
  errno = ETIMEDOUT;
  die("waiting for subscribers");
}

/* One event, or several joined, to one socket: waits for a full socket, so that nothing is ever lost. */
static uint64_t waits;
static void deliver(int fd, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t r = send(fd, out + done, length - done, MSG_DONTWAIT);
    if (r > 0) done += (size_t)r;
    else if (errno != EAGAIN) die("send");
    else {
      struct pollfd p = {fd, POLLOUT, 0};
      waits++;
      if (poll(&p, 1, 10000) == 0) die("a subscriber stopped reading");
    }
  }
}

static void wait_until(uint64_t due) {
  struct timespec t = {(time_t)(due / SECOND), (long)(due % SECOND)};
  clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
}

int main(int argc, char **argv) {
  int o;
  while ((o = getopt(argc, argv, "n:m:j:k:r:z:c")) != -1) switch (o) {
    case 'n': subscribers = (int)number(optarg); break;
    case 'm': events = (long)number(optarg); break;
    case 'j': joined = (int)number(optarg); break;
    case 'k': topics = (int)number(optarg); break;
    case 'r': rate = number(optarg); break;
    case 'z': size = (size_t)number(optarg); break;
    case 'c': chunked = 1; break;
    default: return 2;
    }
  if (!topics || !joined || (size + 128) * (size_t)joined > sizeof out) return 2;
  begin();
  struct sockaddr_in a = loopback(1, 0);
  socklen_t length = sizeof a;
  int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), *fd = calloc((size_t)subscribers, sizeof *fd);
  if (bind(listening, (void *)&a, sizeof a) || listen(listening, 4096) || !fd) die("listen");
  getsockname(listening, (void *)&a, &length);
  printf("{\"port\":%d}\n", ntohs(a.sin_port));
  fflush(stdout);
  uint64_t until = now() + 60 * SECOND;
  for (int i = 0; i < subscribers; i++) fd[i] = accept_one(listening, until);
  wait_until(now() + SECOND / 2); /* the generator has read every welcome before the first event is stamped */
  double cpu = cpu_seconds();
  uint64_t start = now(), sends = 0;
  for (long m = 0; m < events; m += joined) {
    size_t bytes = 0;
    if (rate > 0) wait_until(start + (uint64_t)((double)m / rate * 1e9));
    for (int j = 0; j < joined && m + j < events; j++) bytes += write_event(out + bytes, m + j);
    for (int i = (int)(m / joined % topics); i < subscribers; i += topics, sends++) deliver(fd[i], bytes);
  }
  double seconds = (double)(now() - start) / 1e9;
  printf("{\"seconds\":%.6f,\"cpu_seconds\":%.6f,\"sends\":%llu,\"waits\":%llu,\"deliveries_per_second\":%.0f}\n",
         seconds, cpu_seconds() - cpu, (unsigned long long)sends, (unsigned long long)waits,
         (double)sends * joined / seconds);
  fflush(stdout);
  while (read(0, text, sizeof text) > 0) continue;
  return 0;
}
