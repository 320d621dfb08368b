// PeerServer, as its documentation starts it.
//   node peerjs.mjs PORT
import { PeerServer } from "peer";

PeerServer({ port: Number(process.argv[2]), host: "127.0.0.1", concurrent_limit: 100_000 }, () =>
  console.log(JSON.stringify({ ready: true })),
);
