import { generateKeyPairSync, randomBytes } from "node:crypto";
import { Resolver } from "node:dns/promises";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Component } from "../components.ts";
import { exec } from "../exec.ts";
import { startProcess, type RigProcess, withoutProxies } from "../process.ts";
import { API_ADDRESS, API_PORT, DNS_ADDRESS, SERVICE_CIDR } from "./addresses.ts";
import { kubeconfig } from "./node-files.ts";

export interface ControlPlaneOptions {
  readonly components: {
    readonly kubernetes: Component;
    readonly etcd: Component;
    readonly coredns: Component;
  };
  readonly netns: string;
  readonly address: string;
  /** A folder for its data. */
  readonly home: string;
  /** Names of all nodes that may ever join. */
  readonly nodeNames: readonly string[];
}

/** A part of the control plane that tests take away and bring back. */
export interface Part {
  readonly running: boolean;
  log(): string;
  /** Resolves when it answers. */
  start(): Promise<void>;
  /** SIGKILL: an orderly stop takes seconds, and makes no difference to others. */
  kill(): Promise<void>;
}

export interface ControlPlane extends AsyncDisposable {
  /** File of an administrator's kubeconfig. */
  readonly kubeconfig: string;
  readonly apiServer: Part;
  readonly dns: Part;
  /** Text of a node's kubeconfig. */
  kubeconfigOf(node: string): string;
}

/** etcd, API server, controllers, scheduler and cluster DNS, in one network namespace. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const { components, netns, address, home, nodeNames } = options;
  const { kubernetes } = components;
  await using starting = new AsyncDisposableStack();
  const part = (name: string, component: Component, args: readonly string[], ready?: Probe): Part => {
    const made = createPart({ name, component, args, netns, ...(ready && { ready }) });
    starting.defer(() => made.kill());
    return made;
  };
  const tokens = new Map(["admin", ...nodeNames].map((user) => [user, randomBytes(16).toString("hex")]));
  const file = (name: string): string => path.join(home, name);
  await mkdir(home, { recursive: true });
  await writeFile(file("tokens.csv"), tokenLines(tokens), { mode: 0o600 });
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  await writeFile(file("sa.key"), privateKey.export({ type: "sec1", format: "pem" }), { mode: 0o600 });
  for (const own of [API_ADDRESS, DNS_ADDRESS]) {
    await exec(["ip", "-n", netns, "address", "add", `${own}/32`, "dev", "lo"]);
  }

  const etcdUrl = `http://${address}:2379`;
  const etcd = part(
    "etcd",
    components.etcd,
    [
      `--data-dir=${file("etcd")}`,
      `--listen-client-urls=${etcdUrl}`,
      `--advertise-client-urls=${etcdUrl}`,
      "--listen-peer-urls=http://127.0.0.1:2380",
      // Nothing here outlives the machine.
      "--unsafe-no-fsync",
      "--log-level=warn",
    ],
    () => answersOk(`${etcdUrl}/health`),
  );
  await etcd.start();

  const server = `https://${address}:${API_PORT}`;
  const config = file("admin.kubeconfig");
  const textFor = (user: string, ca: string): string => kubeconfig(server, ca, tokens.get(user) ?? "");
  const certificate = file("certs/apiserver.crt");
  const apiServer = part(
    "kube-apiserver",
    kubernetes,
    [
      `--etcd-servers=${etcdUrl}`,
      `--advertise-address=${address}`,
      `--secure-port=${API_PORT}`,
      `--cert-dir=${file("certs")}`,
      `--token-auth-file=${file("tokens.csv")}`,
      "--authorization-mode=Node,RBAC",
      // Nobody resolves the nodes' names here.
      "--kubelet-preferred-address-types=InternalIP",
      "--enable-admission-plugins=NodeRestriction",
      "--allow-privileged=true",
      `--service-cluster-ip-range=${SERVICE_CIDR}`,
      "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
      `--service-account-key-file=${file("sa.key")}`,
      `--service-account-signing-key-file=${file("sa.key")}`,
    ],
    async () => {
      // The server makes its certificate itself. Others may read the file while it is written again.
      const text = textFor("admin", await readFile(certificate, "utf8"));
      await writeFile(`${config}.new`, text, { mode: 0o600 });
      await rename(`${config}.new`, config);
      const args = [`--kubeconfig=${config}`, "get", "--raw=/readyz"];
      return (await exec([kubernetes.bin("kubectl"), ...args], { env: kubernetes.env })).stdout === "ok";
    },
  );
  await apiServer.start();
  const ca = await readFile(certificate, "utf8");

  const client = [`--kubeconfig=${config}`, "--leader-elect=false", "--secure-port=0"];
  const controllers = [
    `--service-account-private-key-file=${file("sa.key")}`,
    `--root-ca-file=${certificate}`,
    "--use-service-account-credentials=false",
  ];
  const resolver = new Resolver({ timeout: 500, tries: 1 });
  resolver.setServers([address]);
  await writeFile(file("Corefile"), corefile(address, config));
  const dns = part("coredns", components.coredns, ["-conf", file("Corefile")], async () => {
    return (await resolver.resolve4("kubernetes.default.svc.cluster.local")).includes(API_ADDRESS);
  });
  await Promise.all([
    part("kube-controller-manager", kubernetes, [...client, ...controllers]).start(),
    part("kube-scheduler", kubernetes, client).start(),
    dns.start(),
  ]);
  const running = starting.move();
  return {
    kubeconfig: config,
    apiServer,
    dns,
    kubeconfigOf: (node) => textFor(node, ca),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

type Probe = () => Promise<boolean>;

function createPart(options: {
  readonly name: string;
  readonly component: Component;
  readonly args: readonly string[];
  readonly netns: string;
  readonly ready?: Probe;
}): Part {
  const { name, component, args, netns, ready } = options;
  let current: RigProcess | undefined;
  return {
    get running() {
      return current?.running === true;
    },
    log: () => current?.log() ?? "",
    async start() {
      if (current?.running === true) return;
      const argv = [component.bin(name), ...args];
      current = await startProcess({ name, argv, netns, env: withoutProxies(component.env) });
      if (ready !== undefined) await current.until("it answers", ready, { timeoutMs: 90_000, everyMs: 100 });
    },
    async kill() {
      current?.kill("SIGKILL");
      await current?.ended;
    },
  };
}

/** `token,user,uid,"groups"`: kubelets are who the Node authorizer knows them as. */
function tokenLines(tokens: ReadonlyMap<string, string>): string {
  const lines = [...tokens].map(([user, token]) =>
    user === "admin"
      ? `${token},admin,admin,system:masters`
      : `${token},system:node:${user},${user},system:nodes`,
  );
  return `${lines.join("\n")}\n`;
}

const corefile = (address: string, kubeconfigFile: string): string => `.:53 {
  bind ${DNS_ADDRESS} ${address}
  errors
  kubernetes cluster.local {
    kubeconfig ${kubeconfigFile}
  }
}
`;

async function answersOk(url: string): Promise<boolean> {
  const answer = await fetch(url, { signal: AbortSignal.timeout(1000) });
  await answer.body?.cancel();
  return answer.ok;
}
