import t from "tap";
import { keyHashOf, type KeyHash } from "../../src/routing/key.ts";
import { ProviderDatastore } from "../../src/routing/provider-datastore.ts";
import { ProviderStore } from "../../src/routing/provider-store.ts";
import { Key } from "interface-datastore";

const key = (text: string): KeyHash => keyHashOf(`tag:${text}`);

function storeAt(options: Partial<ConstructorParameters<typeof ProviderStore>[0]> = {}) {
  const clock = { now: 1_000 };
  return { clock, store: new ProviderStore({ validityMs: 100, ...options }, () => clock.now) };
}

await t.test("who said it last comes first, and saying it again makes it last", (t) => {
  const { store } = storeAt();
  for (const peer of ["a", "b", "c"]) store.add(key("x"), peer);
  t.strictSame(store.providersOf(key("x")), ["c", "b", "a"]);
  store.add(key("x"), "a");
  t.strictSame(store.providersOf(key("x")), ["a", "c", "b"]);
  t.equal(store.size, 3);
  t.strictSame(store.providersOf(key("y")), []);
  t.end();
});

await t.test("a record counts until it is as old as its validity, to the millisecond", (t) => {
  const { clock, store } = storeAt();
  store.add(key("x"), "a");
  clock.now += 60;
  store.add(key("x"), "b");
  clock.now += 39;
  t.strictSame(store.providersOf(key("x")), ["b", "a"]);
  clock.now += 1;
  t.strictSame(store.providersOf(key("x")), ["b"]);
  t.equal(store.size, 1, "what was found expired is gone");
  t.end();
});

await t.test("the sweep takes out what nobody asks for, and nothing else", (t) => {
  const { clock, store } = storeAt();
  for (let i = 0; i < 50; i += 1) store.add(key(`old ${i}`), "a");
  clock.now += 50;
  store.add(key("old 7"), "a");
  store.add(key("new"), "b");
  clock.now += 50;
  store.sweep();
  t.equal(store.size, 2);
  t.strictSame(store.providersOf(key("old 7")), ["a"]);
  t.end();
});

await t.test("of a thousand providers of a base layer the newest 32 are kept", (t) => {
  const { store } = storeAt();
  for (let i = 0; i < 1_000; i += 1) store.add(key("base"), `peer ${i}`);
  t.strictSame(
    store.providersOf(key("base")),
    Array.from({ length: 32 }, (_, i) => `peer ${999 - i}`),
  );
  t.equal(store.size, 32);
  t.end();
});

await t.test("a peer that floods pushes out its own records, not those of others", (t) => {
  const { store } = storeAt({ maxRecordsPerPeer: 10, maxRecords: 40 });
  for (let i = 0; i < 5; i += 1) store.add(key(`honest ${i}`), "honest");
  for (let i = 0; i < 1_000; i += 1) store.add(key(`flood ${i}`), "flood");
  t.equal(store.size, 15);
  t.strictSame(store.providersOf(key("flood 989")), []);
  t.strictSame(store.providersOf(key("flood 990")), ["flood"]);
  for (let i = 0; i < 100; i += 1) store.add(key(`other flood ${i}`), `flood ${i % 3}`);
  t.equal(store.size, 40);
  for (let i = 0; i < 5; i += 1)
    t.strictSame(store.providersOf(key(`honest ${i}`)), ["honest"], `honest ${i}`);
  t.end();
});

await t.test("a peer that left takes all its records along", (t) => {
  const { store } = storeAt();
  for (let i = 0; i < 20; i += 1) for (const peer of ["a", "b"]) store.add(key(`k ${i}`), peer);
  t.equal(store.removePeer("a"), 20);
  t.equal(store.removePeer("a"), 0);
  t.equal(store.size, 20);
  t.strictSame(store.providersOf(key("k 3")), ["b"]);
  t.end();
});

await t.test("kad-dht reads and writes provider records through it, and nothing else", async (t) => {
  const { store } = storeAt();
  const own = new Set<KeyHash>();
  const datastore = new ProviderDatastore({
    store,
    own,
    self: "self",
    isKnown: (peer) => peer !== "unknown",
  });
  const multihash = Buffer.concat([Buffer.from([0x12, 0x20]), Buffer.from(key("x"), "latin1")]);
  const { base32 } = await import("multiformats/bases/base32");
  const prefix = `/dht/provider/${base32.encode(multihash).slice(1)}`;
  const read = (): string[] => [...datastore.query({ prefix })].map((pair) => pair.key.toString());

  datastore.put(new Key(`${prefix}/a`));
  datastore.put(new Key(`${prefix}/unknown`));
  t.strictSame(store.providersOf(key("x")), ["unknown", "a"]);
  t.strictSame(read(), [`${prefix}/a`], "one without an address would fail the whole answer");
  own.add(key("x"));
  t.strictSame(read(), [`${prefix}/self`, `${prefix}/a`]);
  datastore.delete(new Key(`${prefix}/a`));
  t.strictSame(store.providersOf(key("x")), ["unknown"]);

  datastore.put(new Key("/dht/record/anything"));
  t.throws(() => datastore.get(), { name: "NotFoundError" });
  t.equal(datastore.has(), false);
  t.strictSame([...datastore.query({ prefix: "/dht/provider" })], [], "records of others are not said again");
  for (const bad of ["/dht/provider/", "/dht/provider/%%%/a", "/dht/provider/aaaa/a", "/x"]) {
    datastore.put(new Key(bad));
    t.strictSame([...datastore.query({ prefix: bad })], [], bad);
  }
  t.equal(store.size, 1);
});
