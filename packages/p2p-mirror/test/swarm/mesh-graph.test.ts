import t from "tap";
import { MAX_NEIGHBOURS, MeshGraph } from "../../src/swarm/mesh-graph.ts";
import { seeded } from "./rig.ts";

/** Members that can be reached from the first one. */
function reachable(graph: MeshGraph, ids: readonly string[]): number {
  const [first] = ids;
  const seen = new Set(first === undefined ? [] : [first]);
  for (const id of seen) for (const other of graph.neighboursOf(id)) seen.add(other);
  return seen.size;
}

const degrees = (graph: MeshGraph, ids: readonly string[]): number[] =>
  ids.map((id) => graph.neighboursOf(id).length);

const zoneOf = (id: string): string => `zone ${Number(id.slice(7)) % 2}`;
const names = (count: number): string[] => Array.from({ length: count }, (_, nth) => `member ${nth}`);

await t.test("up to 13 members are all neighbours of each other", (t) => {
  for (let count = 1; count <= MAX_NEIGHBOURS + 1; count += 1) {
    const graph = new MeshGraph(seeded(count));
    const ids = names(count);
    for (const [nth, id] of ids.entries()) graph.add(id, `zone ${nth % 3}`);
    t.ok(
      degrees(graph, ids).every((degree) => degree === count - 1),
      `${count} members`,
    );
  }
  t.end();
});

await t.test("more members have about 8 each, at most 12, and both sides know of it", (t) => {
  for (const count of [14, 20, 50, 200, 1_000]) {
    const graph = new MeshGraph(seeded(count));
    const ids = names(count);
    for (const id of ids) graph.add(id, "");
    const all = degrees(graph, ids);
    const mean = all.reduce((sum, one) => sum + one, 0) / count;
    t.ok(Math.max(...all) <= MAX_NEIGHBOURS, `${count}: at most ${Math.max(...all)}`);
    t.ok(Math.min(...all) >= 5, `${count}: at least ${Math.min(...all)}`);
    t.ok(mean >= 7 && (mean <= 9.5 || count < 50), `${count}: ${mean} on average`);
    t.equal(reachable(graph, ids), count, `${count}: in one piece`);
    for (const id of ids) {
      const neighbours = graph.neighboursOf(id);
      t.ok(
        neighbours.every((other) => other !== id && graph.neighboursOf(other).includes(id)),
        id,
      );
    }
  }
  t.end();
});

await t.test("most neighbours are of the own zone, some are not, and the whole is in one piece", (t) => {
  const graph = new MeshGraph(seeded(3));
  const ids = names(300);
  const zoneOf = (id: string): number => ids.indexOf(id) % 3;
  for (const id of ids) graph.add(id, `zone ${zoneOf(id)}`);
  let own = 0;
  let other = 0;
  for (const id of ids) {
    for (const neighbour of graph.neighboursOf(id)) {
      if (zoneOf(neighbour) === zoneOf(id)) own += 1;
      else other += 1;
    }
  }
  t.ok(own > 2 * other, `${own} in the own zone, ${other} beyond`);
  t.ok(other >= 300, "some beyond");
  t.equal(reachable(graph, ids), 300);
  t.end();
});

await t.test("it stays in one piece while members come and leave, 20 seeds", (t) => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const random = seeded(seed);
    const graph = new MeshGraph(random);
    let ids: string[] = [];
    let whole = true;
    let crowded = 0;
    for (let step = 0; step < 400; step += 1) {
      if (random() < 0.6 || ids.length < 3) {
        ids.push(`member ${step}`);
        graph.add(`member ${step}`, `zone ${Math.floor(random() * 3)}`);
      } else {
        const gone = ids[Math.floor(random() * ids.length)] ?? "";
        ids = ids.filter((id) => id !== gone);
        graph.remove(gone);
      }
      if (random() < 0.2) graph.separate(ids[0] ?? "", graph.neighboursOf(ids[0] ?? "")[0] ?? "");
      whole &&= reachable(graph, ids) === ids.length;
      crowded = Math.max(crowded, ...degrees(graph, ids));
    }
    t.ok(whole, `seed ${seed}: in one piece`);
    t.ok(crowded <= MAX_NEIGHBOURS, `seed ${seed}: at most ${crowded}`);
    t.ok(Math.min(...degrees(graph, ids)) >= 3, `seed ${seed}: at least ${Math.min(...degrees(graph, ids))}`);
  }
  t.end();
});

await t.test(
  "it stays in one piece when all leave that know somebody beyond their zone, again and again",
  (t) => {
    const graph = new MeshGraph(seeded(9));
    let ids = names(400);
    for (const id of ids) graph.add(id, zoneOf(id));
    while (ids.length > 20) {
      const [bridge] = ids.filter((id) =>
        graph.neighboursOf(id).some((other) => zoneOf(other) !== zoneOf(id)),
      );
      if (bridge === undefined) return t.fail("the zones are apart");
      ids = ids.filter((id) => id !== bridge);
      graph.remove(bridge);
      if (reachable(graph, ids) !== ids.length) return t.fail(`not in one piece with ${ids.length} members`);
    }
    t.ok(new Set(ids.map(zoneOf)).size === 2);
    return t.end();
  },
);

await t.test("who has other neighbours than before is named once", (t) => {
  const graph = new MeshGraph(seeded(1));
  graph.add("a", "");
  graph.add("b", "");
  t.same(graph.takeChanged().toSorted(), ["a", "b"]);
  t.same(graph.takeChanged(), []);
  graph.add("c", "");
  t.same(graph.takeChanged().toSorted(), ["a", "b", "c"]);
  graph.remove("a");
  t.same(graph.takeChanged().toSorted(), ["b", "c"]);
  t.same(graph.neighboursOf("a"), []);
  t.same(graph.neighboursOf("b"), ["c"]);
  t.end();
});
