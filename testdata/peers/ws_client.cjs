// A client on node's `ws`: node ws_client.cjs URL close|ask|stay
//
// Sends one message of every kind and waits for the echoes, a pong and two pings of the server.
// Then it closes with code 4001, asks the server to close, or stays until it is killed. At the end
// it prints the frames it sent, by opcode, as one JSON object.
"use strict";

const WebSocket = require("ws");

const [url, ending] = process.argv.slice(2);
const sent = { text: 0, binary: 0, continuation: 0, ping: 0, pong: 0, close: 0 };
const awaited = { echoes: 5, pongs: 1, pings: 2 };
const socket = new WebSocket(url);

socket.on("open", () => {
  for (const text of ["", "hello"]) {
    socket.send(text);
    sent.text += 1;
  }
  // Each of the three ways to write a length (RFC 6455 §5.2).
  for (const size of [200, 70000]) {
    socket.send(Buffer.alloc(size, 0x77));
    sent.binary += 1;
  }
  socket.send("one ", { fin: false });
  socket.send("message", { fin: true });
  sent.text += 1;
  sent.continuation += 1;
  socket.ping("are you there");
  sent.ping += 1;
});
socket.on("ping", () => {
  sent.pong += 1; // ws answers automatically
  heard("pings");
});
socket.on("message", () => heard("echoes"));
socket.on("pong", () => heard("pongs"));
socket.on("close", () => {
  sent.close += socket._closeFrameSent ? 1 : 0;
  console.log(JSON.stringify(sent));
});

function heard(what) {
  awaited[what] -= 1;
  const done = Object.values(awaited).every((left) => left <= 0);
  if (!done || awaited.ended) return;
  awaited.ended = -1;
  if (ending === "close") {
    socket.close(4001, "done");
  } else if (ending === "ask") {
    socket.send("close me");
    sent.text += 1;
  } else {
    console.log("ready");
  }
}
