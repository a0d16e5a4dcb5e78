// Many connections on node's `ws` in one process, each with a kind of traffic:
//
//   node wss_clients.cjs SERVER:PORT LOCAL_ADDRESS CERTIFICATE KEY_LOG TLS_VERSION CIPHERS TRAFFIC...
//
// TRAFFIC is the kind of each connection: see `traffic` below, and README.md for the texts. Trusts
// CERTIFICATE, and appends to KEY_LOG the secrets with which tshark decrypts. Prints a JSON object
// on stdout per event of a connection: "open", the first "answer", each "ping" and "end". Its `port`
// is the connection's own, its `at` in milliseconds since 1970. At SIGTERM all connections are closed
// with a close frame.
"use strict";

const fs = require("fs");
const tls = require("tls");
const WebSocket = require("ws");

const [server, localAddress, certificate, keyLog, version, ciphers, ...kinds] = process.argv.slice(2);
const ca = fs.readFileSync(certificate);
const secrets = fs.openSync(keyLog, "a");

// Handshakes at the same time.
const AT_ONCE = 16;

const between = (low, high) => low + Math.random() * (high - low);
const text = (low, high) => "x".repeat(between(low, high));

// Calls `act` until `connection` ends, with pauses of random length. Returns nothing.
function often(connection, low, high, act) {
  const again = () => (connection.timer = setTimeout(() => (act(), again()), between(low, high)));
  again();
}

const traffic = {
  // Nothing but pongs.
  idle: () => {},
  // Texts of a person who types, sent back.
  chat: (it) => often(it, 300, 3000, () => it.send(text(1, 120))),
  // Texts of four letters, as long as the payload of a ping of Python's websockets.
  words: (it) => often(it, 500, 2500, () => it.send("word")),
  // Twenty messages at once.
  bursts: (it) => often(it, 2000, 6000, () => it.send(`burst 20 ${text(1, 60)}`)),
  // Messages from everybody to everybody.
  room: (it) => often(it, 1000, 5000, () => it.send(`all ${text(1, 80)}`)),
  // A request and a response every second.
  polls: (it) => often(it, 1000, 1000, () => it.send("anything new?")),
  // The server speaks, the client listens.
  ticks: (it) => it.send("tick 700"),
};

const open = new Set();
let closing = false;

function report(port, event, more = {}) {
  console.log(JSON.stringify({ event, port, at: Date.now(), ...more }));
}

function connect(kind) {
  return new Promise((resolve, reject) => {
    const connection = new WebSocket(`wss://${server}/`, {
      ca,
      ciphers,
      localAddress,
      minVersion: version,
      maxVersion: version,
      perMessageDeflate: false,
      createConnection: (options) => {
        const socket = tls.connect({ ...options, path: undefined, servername: "" });
        socket.setNoDelay(true);
        socket.on("keylog", (line) => fs.writeSync(secrets, line));
        return socket;
      },
    });
    let port;
    connection.on("open", () => {
      port = connection._socket.localPort;
      open.add(connection);
      report(port, "open", { traffic: kind });
      traffic[kind](connection);
      resolve();
    });
    connection.on("ping", () => report(port, "ping")); // ws answers automatically
    connection.once("message", () => report(port, "answer"));
    connection.on("error", reject);
    connection.on("close", () => {
      clearTimeout(connection.timer);
      open.delete(connection);
      if (port !== undefined) report(port, "end");
      if (closing && open.size === 0) process.exit(0);
    });
  });
}

async function connectAll(waiting) {
  for (let kind = waiting.pop(); kind !== undefined; kind = waiting.pop()) await connect(kind);
}

process.on("SIGTERM", () => {
  closing = true;
  if (open.size === 0) process.exit(0);
  open.forEach((connection) => connection.close(1000));
});

const waiting = [...kinds].reverse();
Promise.all(Array.from({ length: AT_ONCE }, () => connectAll(waiting))).catch((error) => {
  console.error(error);
  process.exit(1);
});
