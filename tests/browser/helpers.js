// What every page of a test has: connections that tell the test, in order, what happens on them.
// Playwright runs this in a scope of its own, so what pages use is put on `window`.

const MESSAGES = ["welcome", "live", "gap", "expiring", "closing"] // of the server, over SSE

/** Open an EventSource that tells [type, payload, lastEventId] of each event, and ["error", readyState] when it breaks off. */
window.listen = function (url, types = [], name = "source") {
  const source = new EventSource(url)
  for (const type of [...MESSAGES, ...types]) {
    source.addEventListener(type, (event) => tell([type, JSON.parse(event.data), event.lastEventId]))
  }
  source.addEventListener("error", () => tell(["error", source.readyState]))
  return (window[name] = source)
}

/** Open a WebSocket that tells [type, message] of each message, and ["close", {code, reason, wasClean}]. */
window.talk = function (url, protocols = [], first = [], name = "ws") {
  const socket = new WebSocket(url, protocols)
  socket.addEventListener("open", () => first.forEach((message) => socket.send(JSON.stringify(message))))
  socket.addEventListener("message", ({ data }) => {
    const message = JSON.parse(data)
    tell([message.type, message])
  })
  socket.addEventListener("close", ({ code, reason, wasClean }) => tell(["close", { code, reason, wasClean }]))
  return (window[name] = socket)
}
