import { once } from "node:events";
import { Registry } from "prom-client";
import t, { type Test } from "tap";
import { keyHashOf, positionOfKey } from "../../src/routing/key.ts";
import { Lookup } from "../../src/routing/lookup.ts";
import { Members } from "../../src/routing/members.ts";
import { createRoutingMetrics } from "../../src/routing/metrics.ts";
import { ProviderStore } from "../../src/routing/provider-store.ts";
import { newIdentity } from "../../src/trust/identity.ts";

const NODES = 8;
const key = keyHashOf("tag:of-nobody");

/** Eight members, the closest of which are silent; nobody has the key. How often Kademlia was walked, and who was asked. */
async function lookUp(t: Test, { silent, knowsAll = true }: { silent: number; knowsAll?: boolean }) {
  const members = new Members();
  for (let n = 0; n < NODES; n += 1) members.connected((await newIdentity()).peerId);
  const quiet = new Set(members.closest(positionOfKey(key), NODES).slice(0, silent));
  const store = new ProviderStore({ validityMs: 60_000 }, () => performance.now());
  let walks = 0;
  const checked: string[] = [];
  let asked = 0;
  const lookup = new Lookup({
    self: "this node",
    store,
    members,
    replication: NODES,
    knowsAll: () => knowsAll,
    ask: async (member, _, signal) => {
      asked += 1;
      if (!quiet.has(member)) return [];
      await once(signal, "abort");
      throw signal.reason;
    },
    check: (member) => void checked.push(member.id),
    // eslint-disable-next-line require-yield
    findProviders: async function* () {
      walks += 1;
    },
    metrics: createRoutingMetrics(new Registry()),
  });
  for await (const peer of lookup.find(key, [])) t.fail(`${peer.id} does not have it`);
  t.equal(asked, NODES, "all of the closest are asked");
  t.equal(checked.length, silent, "it is looked after those that were silent");
  return walks;
}

await t.test("when all of the closest say no and all members are known, that is the answer", async (t) => {
  t.equal(await lookUp(t, { silent: 0 }), 0);
});

await t.test("a few that are late do not change it", async (t) => {
  t.equal(await lookUp(t, { silent: 3 }), 0);
});

await t.test("when half of the closest are silent, Kademlia is walked", async (t) => {
  t.equal(await lookUp(t, { silent: 4 }), 1);
});

await t.test("so it is when there may be members that are not known", async (t) => {
  t.equal(await lookUp(t, { silent: 0, knowsAll: false }), 1);
});
