import type { TLSSocket } from "node:tls";
import t from "tap";
import { inTurns } from "../../src/peer/dial-turns.ts";
import { MemoryContent, newBlob, newClient, read, startServer } from "./rig.ts";
import { mutePeer } from "./fake-peer.ts";

const OPTIONS = { hostname: "peer", protocol: "https:", port: "1" };

/** A connector whose dials end when told. */
function setup() {
  const dials: ((error: Error | null) => void)[] = [];
  const socket = {} as TLSSocket;
  const dial = inTurns((_, callback) => {
    dials.push((error) => (error === null ? callback(null, socket) : callback(error, null)));
  });
  const ends: string[] = [];
  const start = (name: string): void =>
    dial(OPTIONS, (...[error]) => void ends.push(`${name} ${error === null ? "connected" : error.message}`));
  return { dials, ends, start };
}

await t.test("a dial begins when the one before it has its connection", async (t) => {
  const { dials, ends, start } = setup();
  for (const name of ["a", "b", "c"]) start(name);
  t.equal(dials.length, 1);
  dials[0]?.(null);
  t.equal(dials.length, 2);
  t.same(ends, ["a connected"]);
  dials[1]?.(null);
  dials[2]?.(null);
  t.same(ends, ["a connected", "b connected", "c connected"]);
});

await t.test("those that waited for one that failed fail with it, and the next is tried anew", async (t) => {
  const { dials, ends, start } = setup();
  for (const name of ["a", "b", "c"]) start(name);
  dials[0]?.(new Error("timeout"));
  t.same(ends, ["a timeout", "b timeout", "c timeout"]);
  t.equal(dials.length, 1);
  start("d");
  t.equal(dials.length, 2);
  dials[1]?.(null);
  t.same(ends.at(-1), "d connected");
});

await t.test("of six requests to a process that never answers, one connects", async (t) => {
  const { peer, sockets } = await mutePeer(t);
  const { client } = await newClient(t, { dialTimeoutMs: 100 });
  const { digest } = newBlob(1);
  const failed = Array.from({ length: 6 }, () =>
    t.rejects(client.blob(peer, digest, undefined), { code: "UNREACHABLE" }),
  );
  await Promise.all(failed);
  t.equal(sockets.length, 1);
});

await t.test("requests side by side have connections of their own all the same", async (t) => {
  const blob = newBlob(300_000);
  const { peer } = await startServer(t, new MemoryContent(blob));
  const { client } = await newClient(t, { highWaterMark: 1 });
  const bodies = await Promise.all(
    Array.from({ length: 6 }, async () => (await client.blob(peer, blob.digest, undefined)).body),
  );
  for (const body of bodies) t.ok((await read(body)).equals(blob.bytes));
});
