/** The cluster that the tests of the mirror on Kubernetes stand on: real, whole, and gone without a trace. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import t from "tap";
import { pushImage } from "./rig/images.ts";
import { createCgroups } from "./rig/kubernetes/cgroups.ts";
import { CLUSTER_COMPONENTS, REGISTRY, startCluster } from "./rig/kubernetes/cluster.ts";
import { busyboxImage } from "./rig/kubernetes/images.ts";
import { daemonSetOf, podOf } from "./rig/kubernetes/workloads.ts";
import { isAlive } from "./rig/lock.ts";
import { need } from "./rig/need.ts";
import { until } from "./rig/until.ts";

const components = await need(t, {
  machines: true,
  components: [...CLUSTER_COMPONENTS, "containerd-1.7", "containerd-2.x", "busybox"],
});
/** A file of the rig, as a string of a program. */
const rig = (file: string): string => JSON.stringify(path.join(import.meta.dirname, "rig", file));

/** Says a line to whoever connects. */
const serve = (line: string): string[] => {
  const script = `exec /bin/busybox nc -ll -p 8080 -e /bin/busybox echo ${JSON.stringify(line)}`;
  return ["/bin/busybox", "sh", "-c", script];
};

if (components !== undefined) {
  const panicOnOops = await readFile("/proc/sys/kernel/panic_on_oops", "utf8");
  const begin = performance.now();
  const cluster = await startCluster({
    components,
    nodes: [{ containerd: "1.7" }, { containerd: "2.x" }, { containerd: "2.x" }],
  });
  t.teardown(() => cluster[Symbol.asyncDispose]());
  t.comment(`three nodes Ready after ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  const { kubectl, nodes, upstream } = cluster;
  const [first, second] = nodes;
  if (first === undefined || second === undefined) throw new TypeError("three nodes were asked for");
  const image = `${REGISTRY}/busybox:1`;
  const content = await busyboxImage(components("busybox"), { seed: "rig" });
  await pushImage(content, { registry: upstream.url, repository: "busybox", tags: ["1"] });

  await t.test("the nodes are what they say", async (t) => {
    const { items } = await kubectl.get<Nodes>(["nodes"]);
    t.same(
      items.map(({ status }) => status.nodeInfo.containerRuntimeVersion),
      // Without what a distribution adds to it.
      nodes.map(({ containerdVersion }) => `containerd://${containerdVersion.split("~")[0]}`),
    );
    const kubelets = items.map(({ status }) => status.nodeInfo.kubeletVersion);
    t.same(new Set(kubelets), new Set([`v${components("kubernetes").version}`]));
    t.equal(new Set(items.map(({ status }) => status.nodeInfo.bootID)).size, 3);
    t.equal(new Set(items.map(({ status }) => status.nodeInfo.machineID)).size, 3);
  });

  await t.test("a Pod runs, resolves names and reaches Pods of other nodes", async (t) => {
    await kubectl.apply(podOf("server", { image, node: first.name, command: serve("it is me") }));
    await kubectl.run(["wait", "--for=condition=Ready", "--timeout=60s", "pod/server"]);
    const { status } = await kubectl.get<{ status: { podIP: string } }>(["pod", "server"]);
    const script = `b=/bin/busybox; $b nslookup kubernetes.default.svc.cluster.local && $b nc ${status.podIP} 8080 </dev/null`;
    await kubectl.apply(
      podOf("client", { image, node: second.name, command: ["/bin/busybox", "sh", "-c", script] }),
    );
    await kubectl.run(["wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", "pod/client"]);
    t.match(await kubectl.run(["logs", "client"]), /10\.96\.0\.1\b[^]*it is me/);
    const said = await kubectl.run(["exec", "server", "--", "/bin/busybox", "hostname"]);
    t.equal(said, "server\n");
    const pulls = upstream.requests.filter(({ url }) => url.startsWith("/v2/busybox/manifests/1"));
    t.ok(pulls.length >= 2, "each node has asked upstream for itself");
  });

  await t.test("a DaemonSet has the network and the files of each node", async (t) => {
    const write = "/bin/busybox hostname >/node/var/lib/rig-test; exec /bin/busybox sleep 1000000";
    await kubectl.apply(
      daemonSetOf("on-each", {
        image,
        command: ["/bin/busybox", "sh", "-c", write],
        container: { volumeMounts: [{ name: "lib", mountPath: "/node/var/lib" }] },
        more: {
          hostNetwork: true,
          volumes: [{ name: "lib", hostPath: { path: "/var/lib" } }],
        },
      }),
    );
    await kubectl.run(["rollout", "status", "--timeout=60s", "daemonset/on-each"]);
    for (const { name, machine } of nodes) {
      await until(`${name} has its file`, async () => {
        return (await readFile(machine.file("/var/lib/rig-test"), "utf8")) === `${name}\n`;
      });
    }
    t.notOk((await readdir("/var/lib")).includes("rig-test"), "the machine below has nothing of it");
  });

  await t.test("power cut and boot: another boot, the same disk, the Pods come back", async (t) => {
    const idOf = async (): Promise<string> =>
      (await kubectl.get<Nodes["items"][number]>(["node", first.name])).status.nodeInfo.bootID;
    const before = await idOf();
    await writeFile(first.machine.file("/etc/kept"), "by the disk");
    await first.cutPower();
    t.notOk(first.machine.running);
    await first.boot();
    await until("kubelet tells the new boot", async () => (await idOf()) !== before, { timeoutMs: 60_000 });
    t.equal(await readFile(first.machine.file("/etc/kept"), "utf8"), "by the disk");
    await until(
      "the Pod runs again",
      async () => {
        const args = ["get", "pod", "--selector=app=on-each", `--field-selector=spec.nodeName=${first.name}`];
        const path = "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        return Number(await kubectl.run([...args, path])) >= 1;
      },
      { timeoutMs: 90_000, everyMs: 500 },
    );
  });

  await t.test("containerd and kubelet restart, and Pods run on", async (t) => {
    const selector = ["--selector=app=on-each", `--field-selector=spec.nodeName=${second.name}`];
    const path = "{.items[*].status.containerStatuses[*].containerID}";
    const containers = (): Promise<string> =>
      kubectl.run(["get", "pods", ...selector, `--output=jsonpath=${path}`]);
    const before = await containers();
    t.match(before, /^containerd:/);
    await second.containerd.restart("SIGKILL");
    await second.kubelet.restart();
    await cluster.untilReady();
    await kubectl.apply(podOf("after", { image, node: second.name }));
    await kubectl.run(["wait", "--for=condition=Ready", "--timeout=60s", "pod/after"]);
    t.equal(await containers(), before);
  });

  await t.test("API server and DNS go and come back", async (t) => {
    const { apiServer, dns } = cluster.controlPlane;
    await Promise.all([apiServer.kill(), dns.kill()]);
    t.not((await kubectl.attempt(["get", "nodes", "--request-timeout=2s"])).code, 0);
    await Promise.all([apiServer.start(), dns.start()]);
    await cluster.untilReady();
  });

  await t.test("nothing is left", async (t) => {
    const { netns } = first.machine;
    await cluster[Symbol.asyncDispose]();
    t.notOk((await readdir("/run/netns")).includes(netns));
    t.same(await cgroupsOf(process.pid), []);
    t.equal(await readFile("/proc/sys/kernel/panic_on_oops", "utf8"), panicOnOops);
  });

  await t.test("a killed runner takes its machines along", async (t) => {
    const home = path.join(t.testdir({}), "machine");
    const code = `import { mkdir } from "node:fs/promises";
      import { component } from ${rig("components.ts")};
      import { startMachine } from ${rig("kubernetes/machine.ts")};
      import { createNetwork } from ${rig("netns.ts")};
      const { nodes: [node] } = await createNetwork({ nodes: 1 });
      const home = ${JSON.stringify(home)};
      await mkdir(home);
      const machine = await startMachine({
        name: "m", netns: node.netns, address: node.address, home, catatonit: await component("catatonit"),
      });
      console.log((await machine.start("sleeper", ["sleep", "600"], process.env)).pid);
      setInterval(() => {}, 1000);`;
    const flags = ["--conditions=@p2p-mirror/source", "--input-type=module", "--eval", code];
    const runner = spawn(process.execPath, flags, { stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(runner, "exit");
    const line = once(createInterface({ input: runner.stdout }), "line");
    const pid = Number((await Promise.race([line, ended]))[0]);
    t.ok(isAlive(pid));
    runner.kill("SIGKILL");
    await ended;
    await until("the sleeper on the machine is gone", () => !isAlive(pid));
    const cgroups = await createCgroups("next");
    t.same(await cgroupsOf(runner.pid), [], "and the next run removes its cgroups");
    await cgroups.remove();
  });
}

async function cgroupsOf(pid = 0): Promise<string[]> {
  const found: string[] = [];
  for (const hierarchy of await readdir("/sys/fs/cgroup")) {
    const names = await readdir(path.join("/sys/fs/cgroup", hierarchy));
    found.push(...names.filter((name) => name.startsWith(`p2pm.${pid}.`)));
  }
  return found;
}

interface Nodes {
  readonly items: readonly {
    readonly status: {
      readonly nodeInfo: {
        readonly containerRuntimeVersion: string;
        readonly kubeletVersion: string;
        readonly bootID: string;
        readonly machineID: string;
      };
    };
  }[];
}
