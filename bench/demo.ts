/**
 * The demo: what the mirror does, on one machine, in half a minute. A registry behind a thin link, five nodes that want the
 * same image in the same moment, and what happens when the registry is gone. Needs neither root nor containerd.
 */
import Table from "cli-table3";
import { makeImage, pushImage } from "../test/rig/images.ts";
import { startMirror, type Mirror } from "../test/rig/mirror.ts";
import { startOciRegistry } from "../test/rig/oci-registry.ts";
import { startShapedLink } from "../test/rig/shaped-link.ts";
import { until } from "../test/rig/until.ts";
import { MIB, mib, pullAll, sizeOf, type Row, type Show, type Stage } from "./lib/demo/pull-all.ts";

const LAYERS = [12 * MIB, 8 * MIB, 4 * MIB];
const UPLINK_MBIT = 50;
const NODES = 5;
const REGISTRY = "registry.example";
const REPOSITORY = "team/app";
const TAG = "v1";

export interface DemoResult {
  /** The nodes that began together, then the one that came when the registry was gone. */
  readonly rows: readonly Row[];
  /** Bytes that left the registry, of any kind, as a multiple of the image. */
  readonly copies: number;
  /** From the start of the five to the end of the last of them. */
  readonly seconds: number;
  /** Image size by the uplink's rate: what one node alone cannot beat, nor five. */
  readonly boundSeconds: number;
}

/** Runs until the end of the show, or until the signal; with `stay` the nodes go on until the signal. Nothing is left. */
export async function demo(options: {
  readonly signal: AbortSignal;
  /** Whoever does not want to wait for what the nodes finish. Default: they take up to ten seconds to end. */
  readonly hurry?: AbortSignal;
  readonly output: Stage;
  readonly stay: boolean;
}): Promise<DemoResult> {
  const { signal, output } = options;
  const say = (text: string): void => void output.write(`${text}\n`);
  await using scene = new AsyncDisposableStack();
  const registry = scene.adopt(await startOciRegistry(), (it) => it.close());
  const image = makeImage({ seed: `demo ${Date.now()}`, layers: LAYERS });
  await pushImage(image, { registry: registry.url, repository: REPOSITORY, tags: [TAG] });
  const rate = (UPLINK_MBIT * 1e6) / 8;
  const link = scene.adopt(
    await startShapedLink({ target: { host: "127.0.0.1", port: registry.port }, downRate: rate }),
    (it) => it.close(),
  );
  const size = sizeOf(image);
  const boundSeconds = size / rate;
  say(
    `A registry behind a ${UPLINK_MBIT} Mbit/s uplink holds ${REGISTRY}/${REPOSITORY}:${TAG}, ${mib(size)}: ${boundSeconds.toFixed(1)} s a copy.`,
  );
  say(`Starting ${NODES} nodes, each with a mirror and an empty store of its own.`);

  const nodes: Mirror[] = [];
  options.hurry?.addEventListener("abort", () => nodes.forEach((node) => node.signal("SIGKILL")), {
    once: true,
  });
  const join = async (name: string): Promise<void> => {
    signal.throwIfAborted();
    const mirror = await startMirror({
      name,
      upstreams: { [REGISTRY]: `http://127.0.0.1:${link.port}` },
      bootstrap: nodes.slice(0, 1).map((first) => first.p2pAddress),
    });
    nodes.push(scene.use(mirror));
  };
  for (let n = 1; n <= NODES; n += 1) await join(`node ${n}`);
  await until("the nodes know each other", () => haveMet(nodes), { signal });

  const show: Show = { image, registry: REGISTRY, repository: REPOSITORY, tag: TAG, signal };
  say(`\nAll ${NODES} pull at the same moment, through that one uplink:`);
  const together = await pullAll(nodes, output, show);

  say("The registry is gone now. A new node joins and pulls by tag:");
  await link.kill();
  await registry.kill();
  await join(`node ${NODES + 1}`);
  const late = nodes.slice(NODES);
  await until(
    "the new node knows another",
    async () => (await Promise.all(late.map(peersOf))).every(Boolean),
    {
      signal,
    },
  );
  const rows = [...together, ...(await pullAll(late, output, show))];
  const copies = link.bytes.down / size;
  const seconds = Math.max(...together.map((row) => row.seconds));

  say(tableOf(rows));
  say(`The registry sent the image ${copies.toFixed(2)} times for ${rows.length} nodes.`);
  say(
    `The ${NODES} that began together had it after ${seconds.toFixed(1)} s. One node alone cannot have it before ${boundSeconds.toFixed(1)} s:`,
  );
  say(
    `${(seconds / boundSeconds).toFixed(2)} times that bound; ${NODES} that each ask the registry need ${NODES.toFixed(2)} times as long, or more.`,
  );
  const [first] = nodes;
  if (options.stay && first !== undefined) {
    say(
      `\nThe nodes are still up. Status of one: ${first.adminUrl}/status  (metrics: ${first.adminUrl}/metrics)`,
    );
    say("Ctrl-C ends everything.");
    await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
  } else {
    say("In a terminal the nodes stay up for a look around.");
  }
  return { rows, copies, seconds, boundSeconds };
}

async function peersOf(node: Mirror): Promise<number> {
  const status: unknown = await (await fetch(`${node.adminUrl}/status`)).json();
  const peers = typeof status === "object" && status !== null && "peers" in status ? status.peers : [];
  return Array.isArray(peers) ? peers.length : 0;
}

const haveMet = async (nodes: readonly Mirror[]): Promise<boolean> =>
  (await Promise.all(nodes.map(peersOf))).every((peers) => peers === nodes.length - 1);

function tableOf(rows: readonly Row[]): string {
  const table = new Table({
    head: ["node", "from upstream", "from peers", "layers coordinated", "seconds"],
    colAligns: ["left", "right", "right", "right", "right"],
    style: { head: [], border: [] },
  });
  for (const row of rows)
    table.push([
      row.node,
      mib(row.fromUpstream),
      mib(row.fromPeers),
      row.coordinated.length,
      row.seconds.toFixed(2),
    ]);
  const sum = (pick: (row: Row) => number): number => rows.reduce((total, row) => total + pick(row), 0);
  table.push(["all", mib(sum((row) => row.fromUpstream)), mib(sum((row) => row.fromPeers)), "", ""]);
  return `\n${table.toString()}`;
}

if (import.meta.main) {
  const [stop, hurry] = [new AbortController(), new AbortController()];
  const onSignal = (): void => {
    if (stop.signal.aborted) return hurry.abort();
    process.stdout.write("\nStopping.\n");
    stop.abort(new DOMException("interrupted", "AbortError"));
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  const { stdout } = process;
  try {
    await demo({
      signal: stop.signal,
      hurry: hurry.signal,
      output: stdout,
      stay: stdout.isTTY && !process.argv.includes("--no-stay"),
    });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    process.exitCode = 130;
  }
}
