// A server on node's `ws`: see README.md.
//
// Prints on SIGTERM the frames it sent, by opcode, as one JSON object. The text "close me" is
// answered with a close frame of code 4002.
"use strict";

const fs = require("fs");
const http = require("http");
const https = require("https");
const { WebSocketServer } = require("ws");

const [host, port, pingMilliseconds, certificate, key] = process.argv.slice(2);
const sent = { text: 0, binary: 0, continuation: 0, ping: 0, pong: 0, close: 0 };
const room = new Set();
const listener = certificate
  ? https.createServer({ cert: fs.readFileSync(certificate), key: fs.readFileSync(key) })
  : http.createServer();
const server = new WebSocketServer({ server: listener });

server.on("connection", (socket) => {
  const timers = [];
  const send = (to, message, binary = false) => {
    to.send(message, { binary });
    sent[binary ? "binary" : "text"] += 1;
  };
  if (Number(pingMilliseconds) > 0) {
    const ping = () => {
      socket.ping();
      sent.ping += 1;
    };
    timers.push(setInterval(ping, Number(pingMilliseconds)));
  }
  const stop = () => {
    timers.forEach(clearInterval);
    room.delete(socket);
  };
  socket.on("ping", () => (sent.pong += 1)); // ws answers automatically
  socket.on("message", (message, isBinary) => {
    const text = isBinary ? "" : message.toString();
    const [kind, count] = text.split(" ");
    if (text === "close me") {
      stop();
      socket.close(4002, "as you wish");
    } else if (kind === "burst") {
      for (let n = 0; n < Number(count); n += 1) send(socket, text);
    } else if (kind === "all") {
      room.add(socket);
      room.forEach((member) => send(member, text));
    } else if (kind === "tick") {
      timers.push(setInterval(() => send(socket, "tick"), Number(count)));
    } else {
      send(socket, message, isBinary);
    }
  });
  socket.on("error", () => {}); // a killed client must not end the server
  socket.on("close", () => {
    stop();
    sent.close += socket._closeFrameSent ? 1 : 0;
  });
});
listener.listen(Number(port), host, () => console.log("ready"));

process.on("SIGTERM", () => {
  console.log(JSON.stringify(sent));
  process.exit(0);
});
