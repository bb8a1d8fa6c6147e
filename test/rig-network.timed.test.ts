/** Namespaces, links and counters: what figures and fault tests are measured with. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import path from "node:path";
import { createInterface } from "node:readline";
import t from "tap";
import { startDockerRegistry } from "./rig/docker-registry.ts";
import { exec } from "./rig/exec.ts";
import { need } from "./rig/need.ts";
import { createNetwork } from "./rig/netns.ts";
import { startProcess } from "./rig/process.ts";

const MIB = 1024 * 1024;

/** A client in a namespace: fetches `url` and prints how many bytes came in how many milliseconds. */
const CLIENT = `
const begin = performance.now();
let bytes = 0;
for await (const chunk of (await fetch(process.argv[1])).body) bytes += chunk.length;
console.log(bytes, performance.now() - begin);
`;

await t.test("rates hold in each direction, and the counters count what went over the wire", async (t) => {
  if ((await need(t, { netns: true })) === undefined) return;
  await using network = await createNetwork({
    nodes: 2,
    rates: (n) => (n === 0 ? { ingress: "80mbit" } : {}),
  });
  const [slow, fast] = network.nodes;
  if (slow === undefined || fast === undefined) throw new TypeError("two nodes were asked for");
  const size = 10 * MIB;
  const server = createServer((_, answer) => answer.end(Buffer.alloc(size)));
  server.listen(0, network.hostAddress);
  await once(server, "listening");
  t.teardown(() => server.close());
  const address = server.address();
  if (address === null || typeof address === "string") throw new TypeError("no port");
  const url = `http://${network.hostAddress}:${address.port}/`;
  const fetchIn = async (node: typeof slow): Promise<number> => {
    const { stdout } = await node.exec([process.execPath, "--input-type=module", "--eval", CLIENT, url]);
    const [bytes, ms] = stdout.split(" ").map(Number);
    t.equal(bytes, size);
    return ms ?? 0;
  };
  const before = await slow.counters();
  const slowMs = await fetchIn(slow);
  const after = await slow.counters();
  // 80 Mbit/s are 10 MB/s on the wire: 10 MiB with headers take 1.1 s. A burst and this machine's other work blur it.
  t.ok(slowMs > 950 && slowMs < 3000, `shaped to 80 Mbit/s: ${slowMs.toFixed(0)} ms`);
  const received = after.rxBytes - before.rxBytes;
  t.ok(received > size && received < size * 1.1, `${received} bytes on the wire for ${size}`);
  t.ok(after.txBytes - before.txBytes < size / 20);

  t.ok((await fetchIn(fast)) < slowMs / 2, "the other node is not shaped");
  await slow.shape({});
  t.ok((await fetchIn(slow)) < slowMs / 2, "nor is this one any more");

  t.match(slow.congestionControl, /^(cubic|reno)$/, "no model of a path that does not exist here");
});

/** Answers every request with so many bytes. */
const SERVER = `
const { createServer } = await import("node:http");
const [size, address] = process.argv.slice(1);
createServer((_, answer) => answer.end(Buffer.alloc(Number(size)))).listen(8080, address);
`;

await t.test("the path from one node to another can be thinner than its link", async (t) => {
  if ((await need(t, { netns: true })) === undefined) return;
  await using network = await createNetwork({ nodes: 3 });
  const [far, near, asker] = network.nodes;
  if (far === undefined || near === undefined || asker === undefined) throw new TypeError("three nodes");
  await far.shape({ egress: "80mbit", egressTo: [{ address: asker.address, rate: "16mbit" }] });
  const size = 4 * MIB;
  const argv = [process.execPath, "--input-type=module", "--eval", SERVER, String(size), far.address];
  await using server = await startProcess({ name: "server", argv, netns: far.netns });
  const url = `http://${far.address}:8080/`;
  await server.until("it answers", async () => (await (await fetch(url)).bytes()).length === size);
  const msTo = async (asker: typeof far): Promise<number> => {
    const { stdout } = await asker.exec([process.execPath, "--input-type=module", "--eval", CLIENT, url]);
    const [bytes, ms = 0] = stdout.split(" ").map(Number);
    t.equal(bytes, size);
    return ms;
  };
  // With headers, less what buckets hold at the start: 2.1 s at 16 Mbit/s, 0.42 s at 80.
  const before = await far.counters();
  const thin = await msTo(asker);
  const { txBytes, txPackets } = await far.counters();
  t.ok(thin > 1900 && thin < 4000, `by the thin path: ${thin.toFixed(0)} ms`);
  const payload = txBytes - before.txBytes - 66 * (txPackets - before.txPackets);
  t.ok(payload > size && payload < 1.01 * size, `nothing is sent twice: ${payload} bytes for ${size}`);
  const wide = await msTo(near);
  t.ok(wide > 360 && wide < thin / 2, `to another: ${wide.toFixed(0)} ms`);
  await far.shape({ egress: "80mbit" });
  t.ok((await msTo(asker)) < thin / 2, "the thin path is gone");
});

await t.test("networks of one machine have nothing in common, and are gone after close", async (t) => {
  if ((await need(t, { netns: true })) === undefined) return;
  const networks = await Promise.all([createNetwork({ nodes: 1 }), createNetwork({ nodes: 1 })]);
  const [one, two] = networks;
  t.not(one?.subnet, two?.subnet);
  const node = one?.nodes[0];
  if (node === undefined) throw new TypeError("a node was asked for");
  await t.rejects(node.exec(["ping", "-c", "1", "-W", "1", two?.nodes[0]?.address ?? ""]));
  const sleeper = await startProcess({ name: "sleeper", argv: ["sleep", "600"], netns: node.netns });
  await sleeper.until("it is inside", async () => {
    const { stdout } = await exec(["ip", "netns", "pids", node.netns]);
    return stdout.split("\n").includes(String(sleeper.pid));
  });
  await Promise.all(networks.map((network) => network.close()));
  t.same(await sleeper.ended, { code: null, signal: "SIGKILL" }, "what still ran in it is killed");
  const left = await exec(["ip", "netns", "list"]);
  t.notOk(left.stdout.includes(node.netns));
});

await t.test("what a killed run left behind goes with the next one", async (t) => {
  if ((await need(t, { netns: true })) === undefined) return;
  const rig = JSON.stringify(path.join(import.meta.dirname, "rig/netns.ts"));
  const code = `import { createNetwork } from ${rig};
    const { nodes } = await createNetwork({ nodes: 1 });
    console.log(nodes[0].netns);
    setInterval(() => {}, 1000);`;
  const flags = ["--conditions=@p2p-mirror/source", "--input-type=module", "--eval", code];
  const crashing = spawn(process.execPath, flags, { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(crashing, "exit");
  const line = once(createInterface({ input: crashing.stdout }), "line");
  const [netns]: unknown[] = await Promise.race([line, ended]);
  t.match(netns, /^p2pm\./);
  crashing.kill("SIGKILL");
  await ended;
  t.ok((await exec(["ip", "netns", "list"])).stdout.includes(String(netns)));
  await using _ = await createNetwork({ nodes: 1 });
  t.notOk((await exec(["ip", "netns", "list"])).stdout.includes(String(netns)));
});

await t.test("the registry can be stopped, killed and brought back with its data", async (t) => {
  const components = await need(t, { components: ["docker-registry"] });
  if (components === undefined) return;
  await using registry = await startDockerRegistry({ component: components("docker-registry") });
  const upload = await fetch(`${registry.url}/v2/a/blobs/uploads/`, { method: "POST" });
  t.equal(upload.status, 202);
  await upload.body?.cancel();
  for (const how of ["stop", "kill"] as const) {
    await registry[how]();
    t.notOk(registry.running);
    await t.rejects(fetch(`${registry.url}/v2/`), "nobody listens");
    await registry.start();
    const answer = await fetch(`${registry.url}/v2/`);
    await answer.body?.cancel();
    t.equal(answer.status, 200);
  }
});
