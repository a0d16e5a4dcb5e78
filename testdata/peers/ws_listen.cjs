// A client on node's `ws` that only listens: node ws_listen.cjs URL
//
// Answers pings until it is stopped or killed.
"use strict";

const WebSocket = require("ws");

const socket = new WebSocket(process.argv[2]);
socket.on("open", () => console.log("ready"));
