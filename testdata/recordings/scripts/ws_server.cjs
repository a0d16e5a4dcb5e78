// A server on node's `ws`: node ws_server.cjs ADDRESS PORT
//
// The client chooses the behaviour with the path:
//   /echo       echoes every message, uncompressed
//   /deflate    the same, compressed
//   /count      answers a message with its length
//   /early      sends three frames in the same segment as the 101
//   /heartbeat  sends a ping every 50 ms, every second one with payload
//   /refuse     401
//   /patience   429 for the first attempt on a TCP connection, then as /echo
// The texts "close", "close without code", "vanish" and "reset" end the connection that way. HTTP
// requests without an upgrade get a 200. Prints "ready" on stdout.
"use strict";

const http = require("http");
const { WebSocketServer } = require("ws");

const [host, port] = process.argv.slice(2);
const plain = new WebSocketServer({ noServer: true });
const deflate = new WebSocketServer({ noServer: true, perMessageDeflate: { threshold: 0 } });

const server = http.createServer((request, response) => response.end(`no upgrade: ${request.url}\n`));

server.on("upgrade", (request, socket, head) => {
  const accept = (through) =>
    through.handleUpgrade(request, socket, head, (connection) => serve(connection, socket, request.url));
  if (request.url === "/refuse") {
    refuse(socket, "401 Unauthorized");
  } else if (request.url === "/patience" && !socket.refused) {
    socket.refused = true;
    refuse(socket, "429 Too Many Requests", "Retry-After: 1\r\n");
  } else if (request.url === "/early") {
    socket.cork();
    accept(plain);
    socket.uncork();
  } else {
    accept(request.url === "/deflate" ? deflate : plain);
  }
});
server.listen(Number(port), host, () => console.log("ready"));

// node no longer handles an upgraded socket, so later requests on it are passed to the server by hand.
function refuse(socket, status, headers = "") {
  socket.write(`HTTP/1.1 ${status}\r\nContent-Length: 0\r\n${headers}\r\n`);
  server.emit("connection", socket);
}

function serve(connection, socket, path) {
  if (path === "/early") {
    connection.send("welcome");
    connection.ping();
    connection.send(Buffer.alloc(200, 0x77));
  }
  if (path === "/heartbeat") {
    let beats = 0;
    const heartbeat = setInterval(() => {
      beats += 1;
      connection.ping(beats % 2 === 0 ? `beat ${beats}` : undefined);
    }, 50);
    connection.on("close", () => clearInterval(heartbeat));
  }
  connection.on("error", () => {}); // a client that vanishes is part of the recording
  connection.on("message", (message, isBinary) => {
    const text = isBinary ? undefined : message.toString();
    if (text === "close") connection.close(1001, "as you wish");
    else if (text === "close without code") connection.close();
    else if (text === "vanish") connection.terminate();
    else if (text === "reset") socket.resetAndDestroy();
    else if (path === "/count") connection.send(String(message.length));
    else connection.send(message, { binary: isBinary });
  });
}
