import t from "tap";
import { Breaker } from "../../src/peer/breaker.ts";
import { MemoryContent, metric, newBlob, newClient, read, startServer } from "./rig.ts";
import { mutePeer } from "./fake-peer.ts";

const setup = () => {
  const clock = { now: 0, trips: 0 };
  const breaker = new Breaker(
    { openMs: 5000, refusedMs: 1000, faults: 2 },
    { now: () => clock.now, onTrip: () => (clock.trips += 1) },
  );
  return { breaker, clock };
};

await t.test("one failed dial opens it for five seconds, then one probe is let through", async (t) => {
  const { breaker, clock } = setup();
  breaker.admit()?.dead();
  t.equal(breaker.admit(), undefined);
  clock.now = 4999;
  t.equal(breaker.admit(), undefined);
  clock.now = 5000;
  const probe = breaker.admit();
  t.ok(probe);
  t.equal(breaker.admit(), undefined, "only one at a time");
  probe?.dead();
  clock.now = 9999;
  t.equal(breaker.admit(), undefined, "a failed probe opens it again for the full time");
  clock.now = 10_000;
  breaker.admit()?.alive();
  t.ok(breaker.admit(), "a probe that was answered closes it");
  t.equal(clock.trips, 2);
});

await t.test("a dial that was refused opens it for one second, however often", async (t) => {
  const { breaker, clock } = setup();
  for (const at of [0, 1000, 2000]) {
    clock.now = at;
    breaker.admit()?.refused();
    clock.now = at + 999;
    t.equal(breaker.admit(), undefined);
  }
  clock.now = 3000;
  breaker.admit()?.dead();
  clock.now = 7999;
  t.equal(breaker.admit(), undefined, "one without an answer costs the whole time");
});

await t.test("a probe that ends without a word frees its place", async (t) => {
  const { breaker, clock } = setup();
  breaker.admit()?.dead();
  clock.now = 5000;
  const probe = breaker.admit();
  probe?.release();
  const next = breaker.admit();
  t.ok(next, "the next may probe");
  probe?.release();
  t.equal(breaker.admit(), undefined, "and a second release does not free the place of another probe");
});

await t.test(
  "two faults in a row of a living peer open it; a served request between starts the count again",
  async (t) => {
    const { breaker, clock } = setup();
    breaker.admit()?.failed();
    breaker.admit()?.served(0);
    breaker.admit()?.failed();
    t.ok(breaker.admit());
    t.equal(clock.trips, 0);
    breaker.admit()?.failed();
    t.equal(breaker.admit(), undefined);
    t.equal(clock.trips, 1);
  },
);

await t.test(
  "an answer alone does not forgive a stall: a peer that answers and stalls each time is left alone",
  async (t) => {
    const { breaker, clock } = setup();
    for (let i = 0; i < 2; i += 1) {
      const permit = breaker.admit();
      permit?.alive();
      permit?.failed();
    }
    t.equal(breaker.admit(), undefined);
    t.equal(clock.trips, 1);
  },
);

await t.test(
  "silence is told until something large has come: small answers get through where large ones do not",
  async (t) => {
    const { breaker, clock } = setup();
    for (let i = 0; i < 3; i += 1) {
      breaker.admit()?.silent();
      breaker.admit()?.served(16_383);
    }
    t.equal(breaker.faultsInARow, 3);
    t.equal(clock.trips, 0, "who leaves early keeps nobody else away");
    clock.now = 600_000;
    t.equal(breaker.faultsInARow, 0, "long ago");
    breaker.admit()?.silent();
    t.equal(breaker.faultsInARow, 4);
    breaker.admit()?.served(16_384);
    t.equal(breaker.faultsInARow, 0);
    breaker.admit()?.failed();
    t.equal(breaker.faultsInARow, 1, "what broke off counts as before");
    breaker.admit()?.served(1);
    t.equal(breaker.faultsInARow, 0);
  },
);

await t.test("requests that were under way when the peer died are one trip", async (t) => {
  const { breaker, clock } = setup();
  const permits = Array.from({ length: 6 }, () => breaker.admit());
  for (const permit of permits) permit?.dead();
  t.equal(clock.trips, 1);
});

await t.test("a dial that fails while the peer answers somebody else opens nothing", async (t) => {
  const { breaker, clock } = setup();
  const [early, late] = [breaker.admit(), breaker.admit()];
  clock.now = 500;
  breaker.admit()?.served(0);
  clock.now = 1000;
  early?.dead();
  late?.refused();
  t.ok(breaker.admit());
  t.equal(clock.trips, 0);
  const after = breaker.admit();
  clock.now = 2000;
  after?.dead();
  t.equal(breaker.admit(), undefined, "one that was begun after its last answer counts");
  t.equal(clock.trips, 1);
});

await t.test("a client leaves a dead peer alone, and comes back with one probe", async (t) => {
  const blob = newBlob(100_000);
  const { peer, close } = await startServer(t, new MemoryContent(blob));
  let now = 0;
  const { client, registry } = await newClient(t, {}, { now: () => now });
  await read((await client.blob(peer, blob.digest, undefined)).body);
  await close();
  await t.rejects(client.blob(peer, blob.digest, undefined), { code: "UNREACHABLE" });
  await t.rejects(client.blob(peer, blob.digest, undefined), { message: /left alone/ });
  const count = (outcome: string) => metric(registry, "p2p_mirror_peer_fetched_total", { outcome });
  t.equal(await count("breaker-open"), 1);
  t.equal(await metric(registry, "p2p_mirror_peer_breaker_trips_total"), 1);
  now = 1001;
  await t.rejects(client.blob(peer, blob.digest, undefined), { message: /no connection/ });
  t.equal(await count("unreachable"), 2);
});

await t.test("a breaker belongs to one peer at one address", async (t) => {
  const blob = newBlob(10);
  const { peer } = await startServer(t, new MemoryContent(blob));
  const mute = await mutePeer(t);
  const { client } = await newClient(t, { dialTimeoutMs: 100 });
  await t.rejects(client.blob({ ...peer, port: mute.peer.port }, blob.digest, undefined), {
    code: "UNREACHABLE",
  });
  t.equal((await read((await client.blob(peer, blob.digest, undefined)).body)).byteLength, 10);
});
