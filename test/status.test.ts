/** What `p2p-mirror status` says of real daemons while they share a blob that is on its way. */
import t from "tap";
import { isMirrorStatus } from "../packages/p2p-mirror/src/status-shape.ts";
import type { FlightStatus, MirrorStatus } from "../packages/p2p-mirror/src/status.ts";
import { startChild } from "../packages/p2p-mirror/test/cli/child.ts";
import { blobsOf, makeImage, pushImage } from "./rig/images.ts";
import { startMirror, type Mirror } from "./rig/mirror.ts";
import { startOciRegistry } from "./rig/oci-registry.ts";
import { pullImage } from "./rig/pull.ts";
import { startShapedLink } from "./rig/shaped-link.ts";
import { until } from "./rig/until.ts";

const MIB = 1024 * 1024;
const REGISTRY = "registry.example.test";
const REPOSITORY = "team/app";
/** Slow enough to be watched: the blob takes six seconds. */
const RATE = 2 * MIB;

async function statusOf(mirror: Mirror): Promise<MirrorStatus> {
  const status: unknown = await (await fetch(`${mirror.adminUrl}/status`)).json();
  if (!isMirrorStatus(status)) throw new TypeError(JSON.stringify(status));
  return status;
}

await t.test("three nodes tell of the blob they fetch together, until it is here", async (t) => {
  const registry = await startOciRegistry();
  t.teardown(() => registry.close());
  const image = makeImage({ seed: "status", layers: [12 * MIB] });
  const size = Math.max(...blobsOf(image).map(({ bytes }) => bytes.length));
  await pushImage(image, { registry: registry.url, repository: REPOSITORY, tags: ["v1"] });
  const link = await startShapedLink({ target: { host: "127.0.0.1", port: registry.port }, downRate: RATE });
  t.teardown(() => link.close());
  const mirrors: Mirror[] = [];
  for (let n = 1; n <= 3; n += 1) {
    const mirror = await startMirror({
      name: `mirror-${n}`,
      upstreams: { [REGISTRY]: `http://127.0.0.1:${link.port}` },
      bootstrap: mirrors.slice(0, 1).map((first) => first.p2pAddress),
    });
    t.teardown(() => mirror.close());
    mirrors.push(mirror);
  }
  await until("all mirrors know each other", async () => {
    return (await Promise.all(mirrors.map(statusOf))).every(({ peers }) => peers.length === 2);
  });
  const [first] = mirrors;
  if (first === undefined) throw new TypeError("three");

  const watch = startChild(t, ["status", "--watch", "0.1", "--admin", first.adminUrl]);
  const pulls = mirrors.map(({ url }) =>
    pullImage(image, { url, registry: REGISTRY, repository: REPOSITORY, reference: "v1" }),
  );
  const pulled = Promise.all(pulls);
  pulled.catch(() => undefined);

  let flights: FlightStatus[] = [];
  await until("each node has bytes from the others and knows who coordinates", async () => {
    const found = await Promise.all(mirrors.map(statusOf));
    flights = found.flatMap((status) => status.flights.filter((flight) => flight.size === size));
    return (
      flights.length === 3 &&
      flights.every(({ fromPeers, swarm }) => fromPeers > 0 && swarm?.coordinator !== undefined)
    );
  });
  const ids = (await Promise.all(mirrors.map(statusOf))).map(({ node }) => node.id);
  for (const { received, fromUpstream, fromPeers, readers, swarm, sources } of flights) {
    t.ok(received > 0 && received < size && received <= fromUpstream + fromPeers, `${received} bytes`);
    t.equal(readers, 1);
    t.equal(swarm?.alone, false);
    t.same(
      swarm?.neighbours.filter(({ id }) => !ids.includes(id)),
      [],
      "neighbours are the other nodes",
    );
    for (const { kind, id } of sources)
      t.ok(kind === "peer" ? ids.includes(id) : id === `${REGISTRY}/${REPOSITORY}`, `${kind} ${id}`);
  }
  const coordinators = flights.map(({ swarm }) => swarm?.coordinator);
  t.equal(new Set(coordinators.map((one) => one?.id)).size, 1, "all name the same coordinator");
  t.same(
    coordinators.filter((one) => one?.self).map((one) => one?.members),
    [3],
    "which knows its members",
  );
  t.ok(
    flights.some(({ swarm }) => swarm?.leases.some(({ start, end }) => start < end && end <= size)),
    "somebody has a lease",
  );
  t.ok(flights.some(({ sources }) => sources.some(({ kind }) => kind === "upstream")));

  await pulled;
  await until("the flights are over", async () => {
    return (await Promise.all(mirrors.map(statusOf))).every((status) => status.flights.length === 0);
  });
  t.same((await statusOf(first)).swarm, { banned: [] });
  await until("the watcher has seen the end", () =>
    watch.stdout().endsWith(" no flights; 2 peers; cache 12.0 MiB\n"),
  );
  watch.process.kill("SIGINT");
  t.equal(await watch.ended, 0, "Ctrl-C is how one leaves");
  t.equal(watch.stderr(), "");
  t.match(
    watch.stdout(),
    /Z sha256:[0-9a-f]{12} \d+% of 12.0 MiB; .*from upstream [\d.]+ [KM]iB.*; from peers [\d.]+ [KM]iB.*; coordinated by .*; 2 neighbours; /,
  );
});
