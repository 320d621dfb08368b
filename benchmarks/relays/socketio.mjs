// A signaling server as people write it with socket.io: rooms, and what one sends the others hear.
//   node socketio.mjs PORT [REDIS-URL]
import { createServer } from "node:http";
import { Server } from "socket.io";

const [port, redis] = process.argv.slice(2);
const http = createServer();
const options = { transports: ["websocket"], perMessageDeflate: false, serveClient: false };
if (redis !== undefined) {
  const { createClient } = await import("redis");
  const { createAdapter } = await import("@socket.io/redis-adapter");
  const publisher = createClient({ url: redis });
  const subscriber = publisher.duplicate();
  await Promise.all([publisher.connect(), subscriber.connect()]);
  options.adapter = createAdapter(publisher, subscriber);
}
new Server(http, options).on("connection", (socket) => {
  socket.on("join", async (room, answer) => {
    await socket.join(room);
    answer?.();
  });
  socket.on("offer", (room, body) => socket.to(room).emit("offer", body));
});
http.listen(Number(port), "127.0.0.1", () => console.log(JSON.stringify({ ready: true })));
