import { isRecycling, NotFoundError, SourceError } from "@p2p-mirror/shared";
import t from "tap";
import { BusyError } from "../../src/transfer/peer-client.ts";
import { formatHash } from "../../src/peer/protocol.ts";
import { until } from "../../../../test/rig/until.ts";
import { fakePeer, head } from "./fake-peer.ts";
import { pieceOf, someHash } from "./pieces-rig.ts";
import { metric, newBlob, newClient, read } from "./rig.ts";

const blob = newBlob(400_000);
/** The second piece, of 137,856 bytes. */
const { wanted, bytes } = pieceOf(blob, 1);
const length = `Content-Length: ${wanted.length}`;
const FETCHED = "p2p_mirror_peer_fetched_total";

await t.test("one request goes out, and a body that recycles its chunks comes back", async (t) => {
  const { peer, requests } = await fakePeer(t, (socket) => {
    socket.write(head("200 OK", length, `p2p-hash: ${formatHash(someHash(1))}`, "p2p-load: 3/4"));
    socket.write(bytes);
  });
  const { client } = await newClient(t);
  const { body, hash, load } = await client.piece(peer, blob.digest, wanted);
  t.ok(isRecycling(body));
  t.equal(load, 0.75);
  t.same([...(hash?.sha256 ?? [])], [...someHash(1).sha256]);
  t.same([...(hash?.signature ?? [])], [...someHash(1).signature]);
  t.equal(hash?.signer, someHash(1).signer);
  t.ok((await read(body)).equals(bytes));
  t.equal(requests.length, 1);
  t.match(requests[0], new RegExp(`^GET /p2p/v1/pieces/${blob.digest}/400000/1 HTTP/1\\.1\r\n`));
  t.notMatch(requests[0], /^range:/im);
});

await t.test("a hash that is missing or malformed is undefined; the piece comes all the same", async (t) => {
  const header = `p2p-hash: ${formatHash(someHash(1))}`;
  const headers: Record<string, readonly string[]> = {
    none: [],
    "an empty one": ["p2p-hash:"],
    two: [header, header],
    "a cut one": [header.slice(0, -1)],
    "a longer one": [`${header}A`],
    "without a signer": [header.replace(/\.\w+\./, "..")],
    "another alphabet": [header.replaceAll("-", "+").replaceAll("_", "/")],
  };
  for (const [name, lines] of Object.entries(headers)) {
    const { peer } = await fakePeer(t, (socket) => {
      socket.write(head("200 OK", length, ...lines));
      socket.write(bytes);
    });
    const { client } = await newClient(t);
    const { body, hash, load } = await client.piece(peer, blob.digest, wanted);
    t.equal(hash, undefined, name);
    t.equal(load, undefined, name);
    t.ok((await read(body)).equals(bytes), name);
  }
});

await t.test("an answer that is not exactly the piece is STATUS, before any byte is given out", async (t) => {
  const answers: Record<string, string> = {
    "a byte less": head("200 OK", `Content-Length: ${wanted.length - 1}`),
    "a byte more": head("200 OK", `Content-Length: ${wanted.length + 1}`),
    "the whole blob": head("200 OK", `Content-Length: ${blob.bytes.byteLength}`),
    nothing: head("200 OK", "Content-Length: 0"),
    "a part": head("206 P", length, "Content-Range: bytes 262144-399999/400000"),
    "no length": head("200 OK", "Connection: close"),
    chunks: head("200 OK", "Transfer-Encoding: chunked"),
    "a redirect": head("302 Found", "Location: https://127.0.0.1/", "Content-Length: 0"),
    "a piece it does not know of": head("400 Bad Request", "Content-Length: 0"),
    "a server error": head("500 Oops", "Content-Length: 0"),
  };
  for (const [name, text] of Object.entries(answers)) {
    const { peer } = await fakePeer(t, (socket) => void socket.write(text));
    const { client, registry } = await newClient(t);
    const error: unknown = await client.piece(peer, blob.digest, wanted).catch((cause: unknown) => cause);
    t.ok(error instanceof SourceError && error.code === "STATUS", `${name}: ${String(error)}`);
    t.equal(await metric(registry, FETCHED, { kind: "piece", outcome: "status" }), 1, name);
  }
});

await t.test("not here is NotFoundError, busy is BusyError with others: neither is a fault", async (t) => {
  const other = { id: "12D3KooWother0000000000000000000000", host: "10.1.2.3", port: 24_221 };
  const named = JSON.stringify({ tryInstead: [other] });
  const { peer } = await fakePeer(t, (socket, request) => {
    if (request.includes("/0 HTTP")) socket.write(head("404 Not Found", "Content-Length: 0"));
    else socket.write(head("503 Busy", `Content-Length: ${named.length}`) + named);
  });
  const { client, registry } = await newClient(t);
  for (let nth = 0; nth < 4; nth += 1) {
    await t.rejects(client.piece(peer, blob.digest, pieceOf(blob, 0).wanted), NotFoundError);
    const error: unknown = await client.piece(peer, blob.digest, wanted).catch((cause: unknown) => cause);
    t.ok(error instanceof BusyError);
    t.match(error, { tryInstead: [other] });
  }
  t.equal(await metric(registry, "p2p_mirror_peer_breaker_trips_total"), 0);
});

await t.test(
  "a piece that ends short is CUT, one that stops is STALLED, silence is NO_FIRST_BYTE",
  async (t) => {
    const ways = {
      CUT: (socket: { end(bytes: Buffer): void }) => socket.end(bytes.subarray(0, -1)),
      STALLED: (socket: { write(bytes: Buffer): void }) => socket.write(bytes.subarray(0, -1)),
    };
    for (const [code, rest] of Object.entries(ways)) {
      const { peer } = await fakePeer(t, (socket) => {
        socket.write(head("200 OK", length));
        rest(socket);
      });
      const { client } = await newClient(t);
      const { body } = await client.piece(peer, blob.digest, wanted, { stallMs: 150 });
      await t.rejects(read(body), { code });
    }
    const { peer } = await fakePeer(t, () => undefined);
    const { client } = await newClient(t);
    await t.rejects(client.piece(peer, blob.digest, wanted, { firstByteMs: 100 }), { code: "NO_FIRST_BYTE" });
  },
);

await t.test("bytes beyond the piece are never given out", async (t) => {
  const { peer } = await fakePeer(t, (socket) => {
    socket.write(Buffer.concat([Buffer.from(head("200 OK", length)), bytes, Buffer.from("and more")]));
  });
  const { client } = await newClient(t);
  for (let nth = 0; nth < 2; nth += 1) {
    const { body } = await client.piece(peer, blob.digest, wanted);
    t.ok((await read(body)).equals(bytes), `request ${nth}`);
  }
});

await t.test("a caller's abort is its own reason, and nobody's fault", async (t) => {
  const { peer, requests } = await fakePeer(t, (socket, request) => {
    if (request.includes("/1 HTTP")) socket.write(head("200 OK", length));
  });
  const { client, registry } = await newClient(t);
  for (let nth = 0; nth < 3; nth += 1) {
    const [early, late, reason] = [new AbortController(), new AbortController(), new Error(`no more ${nth}`)];
    const asked = client.piece(peer, blob.digest, pieceOf(blob, 0).wanted, { signal: early.signal });
    await until("the peer has the request", () => requests.length > 2 * nth);
    early.abort(reason);
    t.equal(await asked.catch((error: unknown) => error), reason);
    const { body } = await client.piece(peer, blob.digest, wanted, { signal: late.signal });
    late.abort(reason);
    t.equal(await read(body).catch((error: unknown) => error), reason);
  }
  t.equal(await metric(registry, "p2p_mirror_peer_breaker_trips_total"), 0);
  t.equal(await metric(registry, FETCHED, { kind: "piece", outcome: "aborted" }), 6);
});
