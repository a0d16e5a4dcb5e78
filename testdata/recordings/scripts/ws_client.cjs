// A client on node's `ws`: node ws_client.cjs URL SCENARIO
//
// Runs SCENARIO, waits for the answers, closes the connection and exits.
"use strict";

const http = require("http");
const WebSocket = require("ws");

const [url, scenario] = process.argv.slice(2);

const scenarios = {
  // Every kind of frame, each of the two short ways to write a length.
  messages: async (peer) => {
    for (const text of ["", "hello", "x".repeat(125), "x".repeat(126)]) await peer.echo(text);
    for (const size of [0, 200, 1000]) await peer.echo(Buffer.alloc(size, 0x77));
    await peer.fragments();
    await peer.ping();
    await peer.ping("are you there?");
    await peer.close(1000, "done");
  },
  // A length of 64 bits.
  long: async (peer) => {
    await peer.echo(Buffer.alloc(70000, 0x77));
    await peer.close(4001, "that was long");
  },
  // Hundreds of frames in one segment.
  burst: async (peer) => {
    peer.raw.cork();
    for (let n = 0; n < 600; n += 1) peer.connection.send(`message ${n}`);
    peer.raw.uncork();
    await peer.messages(600);
    await peer.close(1000);
  },
  listen: async (peer) => {
    await peer.pings(4);
    await peer.close(1000);
  },
  early: async (peer) => {
    await peer.messages(2);
    await peer.close(1000);
  },
  "close-without-code": async (peer) => {
    await peer.echo("hello");
    await peer.close();
  },
  "asked-close": async (peer) => {
    await peer.echo("hello");
    await peer.ends("close");
  },
  "asked-close-without-code": async (peer) => {
    await peer.echo("hello");
    await peer.ends("close without code");
  },
  "server-vanishes": async (peer) => {
    await peer.echo("hello");
    await peer.ends("vanish");
  },
  "server-resets": async (peer) => {
    await peer.echo("hello");
    await peer.ends("reset");
  },
  reset: async (peer) => {
    await peer.echo("hello");
    peer.raw.resetAndDestroy();
  },
  vanish: async (peer) => {
    await peer.echo("hello");
    peer.connection.terminate();
  },
};

class Peer {
  constructor(connection) {
    this.connection = connection;
    this.raw = connection._socket;
    this.closed = new Promise((resolve) => connection.once("close", resolve));
    this.counts = { message: 0, ping: 0, pong: 0 };
    for (const event of Object.keys(this.counts)) {
      connection.on(event, () => {
        this.counts[event] += 1;
        connection.emit("counted");
      });
    }
  }
  async count(event, wanted) {
    while (this.counts[event] < wanted) {
      await new Promise((resolve) => this.connection.once("counted", resolve));
    }
  }
  messages(wanted) {
    return this.count("message", wanted);
  }
  pings(wanted) {
    return this.count("ping", wanted);
  }
  async echo(message) {
    this.connection.send(message);
    await this.messages(this.counts.message + 1);
  }
  // A message in three fragments, and a ping between two of them.
  async fragments() {
    this.connection.send("one ", { fin: false });
    this.connection.ping("in between");
    this.connection.send("message ", { fin: false });
    this.connection.send("in parts", { fin: true });
    await this.messages(this.counts.message + 1);
  }
  async ping(payload) {
    this.connection.ping(payload);
    await this.count("pong", this.counts.pong + 1);
  }
  async close(code, reason) {
    this.connection.close(code, reason);
    await this.closed;
  }
  async ends(request) {
    this.connection.send(request);
    await this.closed;
  }
}

// Gives up if the server refuses; `patience` retries on the same TCP connection.
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
let attempts = scenario === "patience" ? 2 : 1;

function connect() {
  attempts -= 1;
  const connection = new WebSocket(url, { perMessageDeflate: url.endsWith("/deflate") ? { threshold: 0 } : false, agent });
  // Early frames come with the upgrade: nothing may be awaited before the listeners exist.
  let peer;
  connection.once("upgrade", () => queueMicrotask(() => (peer = new Peer(connection))));
  connection.once("open", () => {
    peer ??= new Peer(connection);
    scenarios[scenario === "patience" ? "messages" : scenario](peer).then(() => agent.destroy());
  });
  connection.on("error", () => {}); // a server that resets is part of the recording
  connection.on("unexpected-response", (_request, response) => {
    response.resume();
    response.on("end", () => setImmediate(() => (attempts > 0 ? connect() : agent.destroy())));
  });
}

connect();
