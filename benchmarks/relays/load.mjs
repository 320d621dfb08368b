// Puts the same load on each relay: A sends, B receives. One order per line on stdin, one answer per line on stdout.
// It speaks each relay's own protocol on a bare WebSocket, so that no client library is measured.
import { createInterface } from "node:readline";
import { randomBytes } from "node:crypto";
import WebSocket from "ws";

const BODY = randomBytes(240).toString("base64url"); // 320 characters: a candidate, sealed

// Waits for the first message that is wanted.
const first = (socket, wanted) =>
  new Promise((resolve, reject) => {
    const look = (data) => {
      const text = data.toString();
      if (!wanted(text)) return;
      socket.off("message", look);
      resolve(text);
    };
    socket.on("message", look);
    socket.once("error", reject);
    socket.once("close", (code, reason) => reject(new Error(`closed ${code} ${reason}`)));
  });

// Connects, sends a greeting and waits for the answer, which may come with the handshake's.
const open = async (url, greeting, answer) => {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  socket.setMaxListeners(0);
  if (greeting !== undefined) socket.once("open", () => socket.send(greeting));
  await first(socket, answer);
  return socket;
};

const isReady = (text) => text.includes('"ready"');

// Each relay: `party()` opens one idle connection; `pair()` opens A and B and says how A sends and what B hears.
const relays = {
  handclasp: {
    async party(host) {
      const mailbox = randomBytes(16).toString("hex");
      const answer = await fetch(`http://${host}/challenge?mailbox=${mailbox}`);
      if (answer.status !== 200) throw new Error(`challenge: ${answer.status} ${await answer.text()}`);
      const { token } = await answer.json();
      const greeting = JSON.stringify({ type: "subscribe", token, after: 0 });
      return { socket: await open(`ws://${host}/ws`, greeting, isReady), mailbox };
    },
    async pair(hostA, hostB) {
      const { socket: a, mailbox } = await this.party(hostA);
      const b = await open(`ws://${hostB}/ws`, JSON.stringify({ type: "claim", mailbox }), isReady);
      const frame = JSON.stringify({ type: "publish", topic: "offer", body: BODY });
      return { a, b, send: () => a.send(frame), hears: (text) => text.startsWith('{"type":"message"') };
    },
  },
  socketio: {
    async party(host) {
      const url = `ws://${host}/socket.io/?EIO=4&transport=websocket`;
      const socket = await open(url, "40", (text) => text.startsWith("40"));
      socket.on("message", (data) => data.length === 1 && data.toString() === "2" && socket.send("3"));
      return { socket };
    },
    async pair(hostA, hostB) {
      const room = randomBytes(16).toString("hex");
      const { socket: a } = await this.party(hostA);
      const { socket: b } = await this.party(hostB);
      for (const socket of [a, b]) {
        socket.send(`421["join","${room}"]`);
        await first(socket, (text) => text.startsWith("431"));
      }
      const frame = `42["offer","${room}","${BODY}"]`;
      return { a, b, send: () => a.send(frame), hears: (text) => text.startsWith('42["offer"') };
    },
  },
  peerjs: {
    async party(host) {
      const id = randomBytes(16).toString("hex");
      const url = `ws://${host}/peerjs?key=peerjs&id=${id}&token=${id}`;
      return { socket: await open(url, undefined, (text) => text.includes('"OPEN"')), id };
    },
    async pair(hostA, hostB) {
      const { socket: a } = await this.party(hostA);
      const { socket: b, id } = await this.party(hostB);
      const frame = JSON.stringify({ type: "OFFER", dst: id, payload: BODY });
      return { a, b, send: () => a.send(frame), hears: (text) => text.includes('"OFFER"') };
    },
  },
};

const held = [];

function forget() {
  for (const socket of held.splice(0)) socket.terminate();
}

async function pairs(relay, hosts, count) {
  const made = [];
  for (let n = 0; n < count; n++) {
    const pair = await relay.pair(hosts[0], hosts[hosts.length - 1]);
    held.push(pair.a, pair.b);
    made.push(pair);
  }
  return made;
}

// Each pair keeps `window` messages under way until `messages` have arrived in all.
async function throughput(relay, { hosts, count, window, messages }) {
  const all = await pairs(relay, hosts, count);
  let sent = 0;
  let arrived = 0;
  const began = performance.now();
  await new Promise((resolve, reject) => {
    for (const { a, b, send, hears } of all) {
      const more = () => sent < messages && (sent++, send());
      b.on("message", (data) => {
        if (!hears(data.toString())) return;
        if (++arrived === messages) resolve();
        more();
      });
      for (const socket of [a, b]) socket.once("close", (code, why) => reject(new Error(`closed ${code} ${why}`)));
      for (let n = 0; n < window; n++) more();
    }
  });
  return { seconds: (performance.now() - began) / 1000, messages: arrived };
}

// `rate` messages a second, whatever comes back; the time of each from sending to hearing.
async function latency(relay, { hosts, count, rate, messages }) {
  const all = await pairs(relay, hosts, count);
  const times = [];
  await new Promise((resolve, reject) => {
    for (const pair of all) {
      pair.under = [];
      pair.b.on("message", (data) => {
        if (!pair.hears(data.toString())) return;
        times.push(performance.now() - pair.under.shift());
        if (times.length === messages) resolve();
      });
      for (const socket of [pair.a, pair.b])
        socket.once("close", (code, why) => reject(new Error(`closed ${code} ${why}`)));
    }
    const began = performance.now();
    let sent = 0;
    const tick = () => {
      const due = Math.min(messages, ((performance.now() - began) / 1000) * rate);
      for (; sent < due; sent++) {
        const pair = all[sent % all.length];
        pair.under.push(performance.now());
        pair.send();
      }
      if (sent < messages) setImmediate(tick);
    };
    tick();
  });
  times.sort((x, y) => x - y);
  return { p50: times[Math.floor(times.length / 2)], p99: times[Math.floor(times.length * 0.99)] };
}

// Connections that do nothing, some at a time.
async function idle(relay, { hosts, count, abreast }) {
  const began = performance.now();
  let left = count;
  const connect = async () => {
    while (left-- > 0) held.push((await relay.party(hosts[0])).socket);
  };
  await Promise.all(Array.from({ length: abreast }, connect));
  return { seconds: (performance.now() - began) / 1000, connections: held.length };
}

const jobs = { throughput, latency, idle };

console.log(JSON.stringify({ ready: true }));
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  try {
    const result = order.forget ? (forget(), { forgotten: true }) : await jobs[order.job](relays[order.relay], order);
    console.log(JSON.stringify({ done: true, ...result }));
  } catch (error) {
    console.log(JSON.stringify({ done: true, failed: String(error.message ?? error) }));
  }
}
