/**
 * The demo: what the mirror does, on one machine, in half a minute. A registry behind a thin link, five nodes, and what
 * happens when the registry is gone. Needs neither root nor containerd.
 */
import { MultiBar, type SingleBar } from "cli-progress";
import Table from "cli-table3";
import { blobsOf, makeImage, manifestsOf, pushImage, type Content } from "../test/rig/images.ts";
import { startMirror, type Mirror } from "../test/rig/mirror.ts";
import { startOciRegistry } from "../test/rig/oci-registry.ts";
import { pullImage } from "../test/rig/pull.ts";
import { startShapedLink } from "../test/rig/shaped-link.ts";
import { until } from "../test/rig/until.ts";

const MIB = 1024 * 1024;
const LAYERS = [12 * MIB, 8 * MIB, 4 * MIB];
const UPLINK_MBIT = 50;
const NODES = 5;
const REGISTRY = "registry.example";
const REPOSITORY = "team/app";
const TAG = "v1";

interface Row {
  readonly node: string;
  readonly fromUpstream: number;
  readonly fromPeers: number;
  readonly seconds: number;
}

interface Stage {
  readonly image: Content;
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
}

/** Runs until the end of the show, or until the signal; with `stay` the nodes go on until the signal. */
export async function demo(options: {
  readonly signal: AbortSignal;
  readonly output: NodeJS.WriteStream;
  readonly stay: boolean;
}): Promise<Row[]> {
  const { signal, output } = options;
  const say = (text: string): void => void output.write(`${text}\n`);
  await using scene = new AsyncDisposableStack();
  const registry = scene.adopt(await startOciRegistry(), (it) => it.close());
  const image = makeImage({ seed: `demo ${Date.now()}`, layers: LAYERS });
  await pushImage(image, { registry: registry.url, repository: REPOSITORY, tags: [TAG] });
  const link = scene.adopt(
    await startShapedLink({
      target: { host: "127.0.0.1", port: registry.port },
      downRate: (UPLINK_MBIT * 1e6) / 8,
    }),
    (it) => it.close(),
  );
  const size = sizeOf(image);
  say(
    `A registry behind a ${UPLINK_MBIT} Mbit/s uplink holds ${REGISTRY}/${REPOSITORY}:${TAG}, ${mib(size)}.`,
  );
  say(`Starting ${NODES} nodes, each with a mirror and an empty store of its own.`);

  const nodes: Mirror[] = [];
  const join = async (name: string): Promise<Mirror> => {
    signal.throwIfAborted();
    return scene.use(
      await startMirror({
        name,
        upstreams: { [REGISTRY]: `http://127.0.0.1:${link.port}` },
        bootstrap: nodes.slice(0, 1).map((first) => first.p2pAddress),
      }),
    );
  };
  for (let n = 1; n <= NODES; n += 1) nodes.push(await join(`node ${n}`));
  await until("the nodes know each other", () => haveMet(nodes), { signal });

  const stage: Stage = { image, signal, say };
  const [first, ...others] = nodes;
  if (first === undefined) throw new TypeError("there is at least one node");
  say("\nOne node pulls, at the speed of the uplink:");
  const rows = await pullAll([first], output, stage);
  say(`The other ${others.length} pull at the same moment:`);
  rows.push(...(await pullAll(others, output, stage)));

  say("The registry is gone now. A new node joins and pulls by tag:");
  await link.kill();
  await registry.kill();
  const late = await join(`node ${NODES + 1}`);
  nodes.push(late);
  await until("the new node knows another", async () => (await peersOf(late)) > 0, { signal });
  rows.push(...(await pullAll([late], output, stage)));

  say(tableOf(rows));
  say(`The image crossed the uplink ${(link.bytes.down / size).toFixed(2)} times for ${rows.length} nodes.`);
  if (options.stay) {
    say(
      `\nThe nodes are still up. Metrics of one: ${first.adminUrl}/metrics  (status: ${first.adminUrl}/status)`,
    );
    say("Ctrl-C ends everything.");
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  } else {
    say(`Metrics were at ${first.adminUrl}/metrics; in a terminal the nodes stay up for a look around.`);
  }
  return rows;
}

/** All at once, each with a bar of its own on a terminal. */
async function pullAll(nodes: readonly Mirror[], output: NodeJS.WriteStream, stage: Stage): Promise<Row[]> {
  const { image, signal, say } = stage;
  const total = sizeOf(image);
  const bars = output.isTTY
    ? new MultiBar({
        format: "  {node} {bar} {percentage}%  {mib} MiB  {rate} MiB/s",
        stream: output,
        hideCursor: true,
        clearOnComplete: false,
        barsize: 40,
      })
    : undefined;
  try {
    return await Promise.all(
      nodes.map(async (node) => {
        const bar = bars?.create(total, 0, { node: node.name, mib: "0.0", rate: "0.0" });
        const before = await received(node);
        const began = performance.now();
        let bytes = 0;
        await pullImage(image, {
          url: node.url,
          registry: REGISTRY,
          repository: REPOSITORY,
          reference: TAG,
          signal,
          onBytes: (_digest, count) => show(bar, node, (bytes += count), began),
        });
        const seconds = (performance.now() - began) / 1000;
        const after = await received(node);
        if (bars === undefined) say(`  ${node.name}: ${mib(total)} in ${seconds.toFixed(2)} s`);
        return {
          node: node.name,
          fromUpstream: after.upstream - before.upstream,
          fromPeers: after.peers - before.peers,
          seconds,
        };
      }),
    );
  } finally {
    bars?.stop();
  }
}

function show(bar: SingleBar | undefined, node: Mirror, bytes: number, began: number): void {
  const seconds = (performance.now() - began) / 1000;
  bar?.update(bytes, {
    node: node.name,
    mib: (bytes / MIB).toFixed(1),
    rate: (bytes / MIB / seconds).toFixed(1),
  });
}

async function received(node: Mirror): Promise<{ readonly upstream: number; readonly peers: number }> {
  const metrics = await node.metrics();
  const by = (source: string): number => metrics.sum("p2p_mirror_received_bytes_total", { source });
  return { upstream: by("upstream"), peers: by("peer") };
}

async function peersOf(node: Mirror): Promise<number> {
  const status: unknown = await (await fetch(`${node.adminUrl}/status`)).json();
  const peers = typeof status === "object" && status !== null && "peers" in status ? status.peers : [];
  return Array.isArray(peers) ? peers.length : 0;
}

const haveMet = async (nodes: readonly Mirror[]): Promise<boolean> =>
  (await Promise.all(nodes.map(peersOf))).every((peers) => peers === nodes.length - 1);

const sizeOf = (image: Content): number =>
  [...manifestsOf(image), ...blobsOf(image)].reduce((sum, { bytes }) => sum + bytes.length, 0);

const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;

function tableOf(rows: readonly Row[]): string {
  const table = new Table({
    head: ["node", "from upstream", "from peers", "seconds"],
    colAligns: ["left", "right", "right", "right"],
    style: { head: [], border: [] },
  });
  for (const row of rows)
    table.push([row.node, mib(row.fromUpstream), mib(row.fromPeers), row.seconds.toFixed(2)]);
  const sum = (pick: (row: Row) => number): number => rows.reduce((total, row) => total + pick(row), 0);
  table.push(["all", mib(sum((row) => row.fromUpstream)), mib(sum((row) => row.fromPeers)), ""]);
  return `\n${table.toString()}`;
}

if (import.meta.main) {
  const stop = new AbortController();
  const onSignal = (): void => {
    if (stop.signal.aborted) process.exit(130);
    process.stdout.write("\nStopping.\n");
    stop.abort(new DOMException("interrupted", "AbortError"));
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  const { stdout } = process;
  try {
    await demo({
      signal: stop.signal,
      output: stdout,
      stay: stdout.isTTY && !process.argv.includes("--no-stay"),
    });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    process.exitCode = 130;
  }
}
