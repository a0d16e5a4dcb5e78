// An echo server on node's `ws`: node ws_server.cjs ADDRESS PORT PING_MILLISECONDS
//
// Prints "ready" on stdout, and on SIGTERM the frames it sent, by opcode, as one JSON object. The
// text "close me" is answered with a close frame of code 4002.
"use strict";

const { WebSocketServer } = require("ws");

const [host, port, pingMilliseconds] = process.argv.slice(2);
const sent = { text: 0, binary: 0, continuation: 0, ping: 0, pong: 0, close: 0 };
const server = new WebSocketServer({ host, port: Number(port) }, () => console.log("ready"));

server.on("connection", (socket) => {
  const heartbeat = setInterval(() => {
    socket.ping();
    sent.ping += 1;
  }, Number(pingMilliseconds));
  socket.on("ping", () => (sent.pong += 1)); // ws answers automatically
  socket.on("message", (message, isBinary) => {
    if (!isBinary && message.toString() === "close me") {
      clearInterval(heartbeat);
      socket.close(4002, "as you wish");
    } else {
      socket.send(message, { binary: isBinary });
      sent[isBinary ? "binary" : "text"] += 1;
    }
  });
  socket.on("error", () => {}); // a killed client must not end the server
  socket.on("close", () => {
    clearInterval(heartbeat);
    sent.close += socket._closeFrameSent ? 1 : 0;
  });
});

process.on("SIGTERM", () => {
  console.log(JSON.stringify(sent));
  process.exit(0);
});
