/** The last release and this program in one mesh, and each with what the other has left: an upgrade, and the way back. */
import { readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { programOfImage } from "../bench/lib/programs.ts";
import { exec } from "./rig/exec.ts";
import { makeImage, pushImage, type Content } from "./rig/images.ts";
import { lastRelease } from "./rig/last-release.ts";
import { startMirror, writeClusterSecret, type Mirror, type MirrorOptions } from "./rig/mirror.ts";
import { startOciRegistry, type OciRegistry } from "./rig/oci-registry.ts";
import { pullImage } from "./rig/pull.ts";
import { startShapedLink, type ShapedLink } from "./rig/shaped-link.ts";
import { tempFolder } from "./rig/temp.ts";
import { until } from "./rig/until.ts";

const REGISTRY = "registry.example.test";
const REPOSITORY = "team/app";
const MIB = 1024 * 1024;
/** From upstream, in bytes a second: a pull takes long enough for all to take part in it. */
const RATE = 12 * MIB;
/** Nodes that did not understand each other would fetch a copy for each version, at least. */
const MOST_COPIES = 1.5;
/** Digests are coordinated by whoever is the closest: sooner or later by both. */
const CROWDS = 8;

const home = await tempFolder("upgrade");
t.teardown(() => rm(home, { recursive: true, force: true }));
const [last, now] = [path.join(home, "last"), path.join(home, "now")];
const [release, current] = await Promise.all([lastRelease(last), programOfImage(now)]);
const programs = { old: release.main, new: current };
type Version = keyof typeof programs;

interface Node extends Mirror {
  readonly runs: Version;
}

/** Upstream, with a link that is as slow as it should be. */
class Upstream {
  readonly registry: OciRegistry;
  readonly #link: ShapedLink;

  private constructor(registry: OciRegistry, link: ShapedLink) {
    this.registry = registry;
    this.#link = link;
  }

  static async start(t: Test): Promise<Upstream> {
    const registry = await startOciRegistry();
    t.teardown(() => registry.close());
    const { hostname, port } = new URL(registry.url);
    const link = await startShapedLink({ target: { host: hostname, port: Number(port) }, downRate: RATE });
    t.teardown(() => link.close());
    return new Upstream(registry, link);
  }

  get url(): string {
    return `http://${this.#link.host}:${this.#link.port}`;
  }

  async push(tag: string, layers: readonly number[]): Promise<Content> {
    const image = makeImage({ seed: `upgrade ${tag}`, layers });
    await pushImage(image, { registry: this.registry.url, repository: REPOSITORY, tags: [tag] });
    return image;
  }

  /** It is gone for good. */
  gone(): Promise<void> {
    return this.#link.close();
  }
}

async function start(t: Test, runs: Version, options: MirrorOptions): Promise<Node> {
  const mirror = await startMirror({
    name: runs,
    program: programs[runs],
    // Programs in folders of their own are of no use to other runs.
    env: { NODE_COMPILE_CACHE: path.join(home, "compiled") },
    ...options,
  });
  t.teardown(() => mirror.close());
  return Object.assign(mirror, { runs });
}

interface Status {
  readonly node: { readonly id: string; readonly version: string };
  readonly peers: readonly { readonly version?: string }[];
}

const status = async ({ adminUrl }: Mirror): Promise<Status> =>
  (await (await fetch(`${adminUrl}/status`)).json()) as Status;

const know = (nodes: readonly Mirror[], peers: number): Promise<unknown> =>
  until("all know each other, and what each runs", async () => {
    const seen = await Promise.all(nodes.map(status));
    return seen.every((one) => one.peers.filter(({ version }) => version !== undefined).length === peers);
  });

const from = async (mirror: Mirror, source: string): Promise<number> =>
  (await mirror.metrics()).sum("p2p_mirror_received_bytes_total", { source });

const pull = async ({ url }: Mirror, image: Content, reference: string): Promise<number> =>
  (await pullImage(image, { url, registry: REGISTRY, repository: REPOSITORY, reference })).bytes;

const total = async (nodes: readonly Mirror[], source: string): Promise<number> =>
  (await Promise.all(nodes.map((node) => from(node, source)))).reduce((sum, one) => sum + one, 0);

await t.test("what is kept is the last release; before the first one, what will be it", async (t) => {
  const changes = await readFile(path.join(import.meta.dirname, "../CHANGELOG.md"), "utf8");
  const headings = [...changes.matchAll(/^## (\S+)(.*)$/gm)];
  const [, released = ""] = headings.find(([, , rest]) => rest !== " (unreleased)") ?? headings[0] ?? [];
  t.equal(release.version, released, "else: npm run release:keep -- vVERSION");
});

/** Whether a node has told members of a swarm what to fetch. */
const coordinated = async (node: Mirror): Promise<boolean> => {
  const messages = await node.metrics();
  return messages.sum("p2p_mirror_swarm_messages_total", { direction: "out", kind: "told" }) > 0;
};

/**
 * All pull new images at once, until nodes of both versions have coordinated and every node has had bytes of others. Every
 * byte is compared with its digest.
 */
async function crowds(t: Test, nodes: readonly Node[], upstream: Upstream): Promise<void> {
  const round = async (tag: string): Promise<boolean> => {
    const image = await upstream.push(tag, [5 * MIB, 3 * MIB, 100_000]);
    const before = await total(nodes, "upstream");
    const [bytes = 0] = await Promise.all(nodes.map((node) => pull(node, image, tag)));
    const copies = ((await total(nodes, "upstream")) - before) / bytes;
    t.comment(`${tag}: ${nodes.length} nodes, ${copies.toFixed(2)} copies`);
    const have = await Promise.all(nodes.map(async (node) => (await coordinated(node)) && node.runs));
    const had = await Promise.all(nodes.map((node) => from(node, "peer")));
    return copies < MOST_COPIES && have.includes("old") && have.includes("new") && !had.includes(0);
  };
  let good = false;
  for (let nth = 1; nth <= CROWDS && !good; nth += 1) good = await round(`crowd-${nth}`);
  t.ok(good, `${nodes.length} nodes of two versions fetch an image about once, led by either`);
  for (const node of nodes) {
    const scrape = await node.metrics();
    const refused = scrape.sum("p2p_mirror_peer_served_total", { outcome: "refused" });
    t.equal(scrape.sum("p2p_mirror_swarm_hashes_refused_total"), 0, `${node.name} took every signature`);
    t.equal(refused, 0, "and was asked for nothing that it did not understand");
  }
}

/** Each of the others knows what a node holds. */
const told = (node: Mirror, others: number): Promise<unknown> =>
  until("it has told what it holds", async () => {
    const scrape = await node.metrics();
    const advertised = scrape.sum("p2p_mirror_dht_records_advertised");
    const sent = scrape.sum("p2p_mirror_dht_records_sent_total");
    return advertised > 0 && sent >= others * advertised;
  });

/** A tag that one node alone has pulled. */
interface Held {
  readonly tag: string;
  readonly image: Content;
}

/** The other version by tag, with upstream gone. */
async function pullFromOther(t: Test, reader: Node, { image, tag }: Held): Promise<void> {
  const had = await from(reader, "peer");
  const bytes = await pull(reader, image, tag);
  t.equal((await from(reader, "peer")) - had, bytes, `${reader.runs} has ${tag} from the other version`);
  const stale = (await reader.metrics()).sum("p2p_mirror_stale_tag_answers_total");
  t.equal(stale, 1, "by a record that the other version has signed");
}

/** The other version begins with what a node has left; nobody says where the others are, and upstream is gone. */
async function takeOver(t: Test, before: Node, { image, tag }: Held, options: MirrorOptions): Promise<Node> {
  const runs = before.runs === "old" ? "new" : "old";
  const { node, peers } = await status(before);
  await before.stop();
  const after = await start(t, runs, { ...options, dataDir: before.dataDir });
  t.equal((await status(after)).node.id, node.id, `${runs} is who ${before.runs} was`);
  await know([after], peers.length);
  await pull(after, image, tag);
  await pull(after, image, image.descriptor.digest);
  t.equal((await from(after, "peer")) + (await from(after, "upstream")), 0, "and holds what it held");
  t.notMatch(
    after.log(),
    /set aside|brought in line|read back/,
    "its index is read as it is: another schema would be said in the changelog",
  );
  return after;
}

/** Everything is over: each alone takes a second or so to say goodbye. */
const stop = (nodes: readonly Mirror[]): Promise<unknown> => Promise.all(nodes.map((node) => node.stop()));

await t.test("both versions are one cluster, and each takes over what the other has left", async (t) => {
  const upstream = await Upstream.start(t);
  const secretFiles = [await writeClusterSecret(path.join(home, "secret"))];
  const options = { upstreams: { [REGISTRY]: upstream.url }, secretFiles };
  const node = async (runs: Version, name: string, ...known: readonly Mirror[]): Promise<Node> => {
    const dataDir = path.join(home, name);
    return start(t, runs, { ...options, dataDir, bootstrap: known.map((one) => one.p2pAddress) });
  };
  const first = await node("old", "old-1");
  const [second, third, fourth] = await Promise.all([
    node("new", "new-1", first),
    node("new", "new-2", first),
    node("old", "old-2", first),
  ]);
  const nodes = [first, second, third, fourth];
  await know(nodes, nodes.length - 1);
  t.equal((await status(first)).node.version, release.version);

  const ofOld = { tag: "of-old", image: await upstream.push("of-old", [2 * MIB, 10_000]) };
  const ofNew = { tag: "of-new", image: await upstream.push("of-new", [2 * MIB, 10_000]) };
  await Promise.all([pull(first, ofOld.image, ofOld.tag), pull(second, ofNew.image, ofNew.tag)]);
  await crowds(t, nodes, upstream);
  await Promise.all(nodes.map((one) => told(one, nodes.length - 1)));

  await upstream.gone();
  await Promise.all([pullFromOther(t, third, ofOld), pullFromOther(t, fourth, ofNew)]);
  const after = await Promise.all([takeOver(t, first, ofOld, options), takeOver(t, second, ofNew, options)]);
  await stop([...after, third, fourth]);
});

await t.test("so are two without a secret", async (t) => {
  const upstream = await Upstream.start(t);
  const upstreams = { [REGISTRY]: upstream.url };
  const first = await start(t, "new", { upstreams });
  const nodes = [first, await start(t, "old", { upstreams, bootstrap: [first.p2pAddress] })];
  await know(nodes, 1);
  await crowds(t, nodes, upstream);
  await stop(nodes);
});

await t.test("what one has put into a hosts.toml the other takes out, to the byte", async (t) => {
  const text = 'server = "https://quay.io" # ours\n\n[host."https://m.example"]\n  capabilities = ["pull"]\n';
  for (const [one, other] of [["old", "new"] as const, ["new", "old"] as const]) {
    const certs = t.testdir({ "quay.io": {} });
    const file = path.join(certs, "quay.io/hosts.toml");
    await writeFile(file, text);
    const hosts = (runs: Version, what: string): Promise<unknown> =>
      exec([process.execPath, programs[runs], "hosts", what, "--hosts-dir", certs]);
    await hosts(one, "install");
    const installed = await readFile(file, "utf8");
    t.not(installed, text);
    await hosts(other, "install");
    await hosts(other, "remove");
    t.equal(await readFile(file, "utf8"), text, `${other} after ${one}`);
  }
});
