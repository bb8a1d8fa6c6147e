import { NotFoundError, SourceError } from "@p2p-mirror/shared";
import t from "tap";
import { BusyError, TooSlowError } from "../../src/transfer/peer-client.ts";
import { fakePeer, head } from "./fake-peer.ts";
import { until } from "../../../../test/rig/until.ts";
import { metric, newBlob, newClient, read } from "./rig.ts";

const blob = newBlob(200_000);
const whole = head("200 OK", `Content-Length: ${blob.bytes.byteLength}`);

await t.test(
  "a peer that takes the request and stays silent is NO_FIRST_BYTE, within the deadline",
  async (t) => {
    const { peer, requests } = await fakePeer(t, () => undefined);
    const { client, registry } = await newClient(t, { firstByteMs: 150 });
    const started = Date.now();
    await t.rejects(client.blob(peer, blob.digest, undefined), { code: "NO_FIRST_BYTE" });
    t.ok(Date.now() - started < 2000, `it took ${Date.now() - started} ms`);
    await t.rejects(client.blob(peer, blob.digest, undefined, { firstByteMs: 50 }), {
      code: "NO_FIRST_BYTE",
    });
    t.equal(requests.length, 2, "a silent peer is asked once per call, never again by itself");
    t.equal(client.faultsOf(peer), 2, "as the doctor is told");
    t.equal(
      await metric(registry, "p2p_mirror_peer_breaker_trips_total"),
      1,
      "two in a row open the breaker",
    );
  },
);

await t.test("RST and FIN in the middle of a body are CUT, and what came before is intact", async (t) => {
  for (const how of ["RST", "FIN"] as const) {
    const { peer } = await fakePeer(t, (socket, _, tcp) => {
      socket.write(whole);
      socket.write(blob.bytes.subarray(0, 100_000), () => {
        if (how === "FIN") socket.end();
        // After the reader had the time to take the first half: an RST may take back what was not read yet.
        else setTimeout(() => tcp?.resetAndDestroy(), 50);
      });
    });
    const { client, registry } = await newClient(t);
    const { body } = await client.blob(peer, blob.digest, undefined);
    const got: Buffer[] = [];
    body.on("data", (chunk: Buffer) => got.push(chunk));
    const error: unknown = await new Promise((resolve) => void body.on("error", resolve).on("end", resolve));
    t.ok(error instanceof SourceError && error.code === "CUT", `${how}: ${String(error)}`);
    t.ok(Buffer.concat(got).equals(blob.bytes.subarray(0, 100_000)), `${how}: the bytes before are right`);
    t.equal(await metric(registry, "p2p_mirror_peer_fetched_total", { outcome: "cut" }), 1, how);
  }
});

await t.test(
  "an answer that is not exactly what was asked for is STATUS, before any byte is given out",
  async (t) => {
    const range = { start: 1000, end: 2000 };
    const body = "x".repeat(1000);
    const answers: Record<string, string> = {
      "the whole for a range": head("200 OK", "Content-Length: 1000") + body,
      "another start": head("206 P", "Content-Length: 1000", "Content-Range: bytes 1001-2000/5000") + body,
      "a shorter range": head("206 P", "Content-Length: 999", "Content-Range: bytes 1000-1998/5000") + body,
      "a length that contradicts the range":
        head("206 P", "Content-Length: 900", "Content-Range: bytes 1000-1999/5000") + body,
      "no Content-Range": head("206 P", "Content-Length: 1000") + body,
      "an unknown size": head("206 P", "Content-Length: 1000", "Content-Range: bytes 1000-1999/*") + body,
      "no length at all": head("206 P", "Content-Range: bytes 1000-1999/5000", "Connection: close") + body,
      "chunks of no announced length":
        head("206 P", "Transfer-Encoding: chunked", "Content-Range: bytes 1000-1999/5000") + "3e8\r\n" + body,
      "an encoding": head("206 P", "Content-Length: 1000", "Content-Encoding: gzip") + body,
      "a length out of this world": head("206 P", "Content-Length: 99999999999999999999") + body,
      "a redirect": head("302 Found", "Location: https://127.0.0.1/", "Content-Length: 0"),
      "a server error": head("500 Oops", "Content-Length: 0"),
      "early hints": head("103 Early Hints", "Link: </x>").repeat(3),
      "no HTTP": "SSH-2.0-OpenSSH_9.2\r\n\r\n",
      "endless headers": `HTTP/1.1 206 P\r\n${"X-Y: zzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\r\n".repeat(1000)}`,
    };
    for (const [name, text] of Object.entries(answers)) {
      const { peer } = await fakePeer(t, (socket) => void socket.write(text));
      const { client, registry } = await newClient(t, { firstByteMs: 1000 });
      const error: unknown = await client.blob(peer, blob.digest, range).catch((cause: unknown) => cause);
      t.ok(error instanceof SourceError && error.code === "STATUS", `${name}: ${String(error)}`);
      t.equal(await metric(registry, "p2p_mirror_peer_fetched_total", { outcome: "status" }), 1, name);
    }
  },
);

await t.test(
  "bytes beyond the announced length are never given out, and poison no later request",
  async (t) => {
    const { peer, sockets } = await fakePeer(t, (socket) => {
      socket.write(Buffer.concat([Buffer.from(whole), blob.bytes, Buffer.from("HTTP/1.1 200 OK\r\nevil")]));
    });
    const { client } = await newClient(t);
    for (let i = 0; i < 3; i += 1) {
      const { body } = await client.blob(peer, blob.digest, undefined);
      t.ok((await read(body)).equals(blob.bytes), `request ${i}`);
    }
    t.equal(sockets.length, 3, "a connection that said too much is not used again");
  },
);

await t.test("a peer that stops in the middle is STALLED after the caller's limit", async (t) => {
  const { peer } = await fakePeer(t, (socket) => {
    socket.write(whole);
    socket.write(blob.bytes.subarray(0, 50_000));
  });
  const { client, registry } = await newClient(t);
  const { body } = await client.blob(peer, blob.digest, undefined, { stallMs: 150 });
  const started = Date.now();
  await t.rejects(read(body), { code: "STALLED" });
  t.ok(Date.now() - started < 2000, `it took ${Date.now() - started} ms`);
  t.equal(await metric(registry, "p2p_mirror_peer_fetched_total", { outcome: "stalled" }), 1);
  t.equal(client.faultsOf(peer), 1, "as the doctor is told");
});

await t.test("a slow drip is a stall while others could deliver, and none for the last source", async (t) => {
  const drip = newBlob(20_000);
  const { peer } = await fakePeer(t, (socket) => {
    socket.write(head("200 OK", `Content-Length: ${drip.bytes.byteLength}`));
    let at = 0;
    const timer = setInterval(() => {
      socket.write(drip.bytes.subarray(at, (at += 400)));
      if (at >= drip.bytes.byteLength) clearInterval(timer);
    }, 10);
    socket.on("close", () => clearInterval(timer));
  });
  const { client } = await newClient(t);
  const impatient = await client.blob(peer, drip.digest, undefined, { stallMs: 100 });
  await t.rejects(read(impatient.body), { code: "STALLED" });
  const patient = await client.blob(peer, drip.digest, undefined);
  t.ok((await read(patient.body)).equals(drip.bytes));
});

await t.test("a body that its caller gives up for being too slow is the peer's stall", async (t) => {
  const { peer } = await fakePeer(t, (socket) => {
    socket.write(whole);
    socket.write(blob.bytes.subarray(0, 50_000));
  });
  const { client, registry } = await newClient(t);
  for (let nth = 0; nth < 2; nth += 1) {
    const controller = new AbortController();
    const { body } = await client.blob(peer, blob.digest, undefined, { signal: controller.signal });
    controller.abort(new TooSlowError(peer.id));
    await t.rejects(read(body), { code: "STALLED" });
  }
  t.equal(await metric(registry, "p2p_mirror_peer_fetched_total", { outcome: "stalled" }), 2);
  await t.rejects(client.blob(peer, blob.digest, undefined), { message: /left alone/ });
});

await t.test("without a second source only silence of the client's own limit is a stall", async (t) => {
  const { peer } = await fakePeer(t, (socket) => void socket.write(whole + "abc"));
  const { client } = await newClient(t, { stallMs: 150 });
  const { body } = await client.blob(peer, blob.digest, undefined);
  await t.rejects(read(body), { code: "STALLED" });
});

await t.test("time in which the caller does not read is not the peer's stall", async (t) => {
  const large = newBlob(8 * 1024 * 1024);
  const { peer } = await fakePeer(t, (socket) => {
    socket.write(head("200 OK", `Content-Length: ${large.bytes.byteLength}`));
    socket.write(large.bytes);
  });
  const { client } = await newClient(t, { highWaterMark: 64 * 1024 });
  const { body } = await client.blob(peer, large.digest, undefined, { stallMs: 100 });
  await until("the body's buffer is full", () => body.readableLength >= 64 * 1024);
  const paused = Date.now();
  await until("five limits have passed", () => Date.now() - paused > 500);
  t.ok((await read(body)).equals(large.bytes));
});

await t.test(
  "a caller's abort is its own reason, before the head and in the body, and nobody's fault",
  async (t) => {
    const { peer, sockets } = await fakePeer(t, (socket, request) => {
      if (request.includes("range:"))
        socket.write(head("206 P", "Content-Length: 10", "Content-Range: bytes 0-9/99"));
    });
    const { client, registry } = await newClient(t);
    for (let i = 0; i < 3; i += 1) {
      const abort = new AbortController();
      const reason = new Error(`changed my mind ${i}`);
      const asked = client.blob(peer, blob.digest, undefined, { signal: abort.signal });
      await until("the peer has the request", () => sockets.length > i * 2);
      abort.abort(reason);
      t.equal(await asked.catch((error: unknown) => error), reason);

      const second = new AbortController();
      const { body } = await client.blob(peer, blob.digest, { start: 0, end: 10 }, { signal: second.signal });
      second.abort(reason);
      t.equal(await read(body).catch((error: unknown) => error), reason);
    }
    await t.rejects(
      client.blob(peer, blob.digest, undefined, { signal: AbortSignal.abort(new Error("early")) }),
      {
        message: "early",
      },
    );
    t.equal(await metric(registry, "p2p_mirror_peer_breaker_trips_total"), 0);
    t.equal(await metric(registry, "p2p_mirror_peer_fetched_total", { outcome: "aborted" }), 7);
  },
);

await t.test("a kept connection that the peer closes is replaced without a word", async (t) => {
  let requests = 0;
  const { peer, sockets } = await fakePeer(t, (socket) => {
    requests += 1;
    // Every second request on a connection finds it closing, as when the peer's idle limit is reached right then.
    if (requests % 2 === 0) socket.end();
    else socket.write(head("200 OK", "Content-Length: 3") + "abc");
  });
  const { client, registry } = await newClient(t);
  for (let i = 0; i < 4; i += 1) {
    const { body } = await client.blob(peer, blob.digest, undefined);
    t.equal((await read(body)).toString(), "abc", `request ${i}`);
  }
  t.equal(sockets.length, 4);
  t.equal(await metric(registry, "p2p_mirror_peer_fetched_total", { outcome: "complete" }), 4);
  t.equal(await metric(registry, "p2p_mirror_peer_fetched_total", { outcome: "cut" }), 0);
});

await t.test("a busy answer is bounded and only valid peers come out of it", async (t) => {
  const good = { id: "12D3KooWgood000000000000000000000000", host: "10.0.0.7", port: 24_221 };
  const bodies: [string, number][] = [
    [
      JSON.stringify({ tryInstead: [good, { ...good, port: 0 }, { ...good, host: "a b" }, { id: 1 }, null] }),
      1,
    ],
    [JSON.stringify({ tryInstead: Array.from({ length: 20 }, () => good) }), 8],
    [JSON.stringify({ tryInstead: "all" }), 0],
    ["<html>", 0],
    ["x".repeat(100_000), 0],
  ];
  for (const [text, expected] of bodies) {
    const { peer } = await fakePeer(t, (socket) => {
      socket.write(head("503 Busy", `Content-Length: ${text.length}`, "p2p-load: 16/16") + text);
    });
    const { client } = await newClient(t);
    const error: unknown = await client.blob(peer, blob.digest, undefined).catch((cause: unknown) => cause);
    t.ok(error instanceof BusyError, String(error));
    t.equal(error instanceof BusyError && error.tryInstead.length, expected, text.slice(0, 40));
  }
});

await t.test("a record longer than 64 KiB is refused", async (t) => {
  const { peer } = await fakePeer(t, (socket) => void socket.write(head("200 OK", "Content-Length: 65537")));
  const { client } = await newClient(t);
  await t.rejects(client.record(peer, "tag:x"), { code: "STATUS" });
});

await t.test("a 404 with a long page is still NotFoundError", async (t) => {
  const { peer } = await fakePeer(t, (socket) => {
    socket.write(head("404 Not Found", "Content-Length: 1000000") + "x".repeat(1000));
  });
  const { client } = await newClient(t);
  await t.rejects(client.blob(peer, blob.digest, undefined), NotFoundError);
});

await t.test("headers that a newer peer adds are passed over", async (t) => {
  const added = ["P2p-Versions: 1, 2", "P2p-Mood: fine", "P2p-Load: 3/16 of two kinds"];
  const { peer } = await fakePeer(t, (socket) => {
    socket.write(head("200 OK", `Content-Length: ${blob.bytes.byteLength}`, ...added));
    socket.write(blob.bytes);
  });
  const { client } = await newClient(t);
  const { body, load } = await client.blob(peer, blob.digest, undefined);
  t.ok((await read(body)).equals(blob.bytes));
  t.equal(load, undefined, "and so is one that says more than it did");
});
