import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { amountOf } from "@p2p-mirror/shared/config";
import t from "tap";
import { stringify } from "yaml";
import { loadMirrorConfig } from "../packages/p2p-mirror/src/config/load.ts";
import type { MirrorConfig } from "../packages/p2p-mirror/src/config/mirror-config.ts";
import { ENV_PREFIX, MIRROR_SCHEMA } from "../packages/p2p-mirror/src/config/schema.ts";
import { run } from "../packages/p2p-mirror/test/cli/terminal.ts";
import {
  build,
  componentFolders,
  kustomizations,
  MANIFESTS,
  nameOf,
  parseObjects,
  type KubernetesObject,
} from "./manifests/kustomize.ts";
import { environmentOf, podOf, type Container } from "./manifests/pod.ts";
import { need } from "./rig/need.ts";

const GOLDEN = join(import.meta.dirname, "golden/manifests");

/** What the roles allow, where it is not what the base needs. */
const RIGHTS: Readonly<Record<string, readonly string[]>> = {
  "overlays/example": ["create events", "list endpointslices", "patch nodes/status"],
  "overlays/high-security": [],
  "uninstall/base": [],
  "uninstall/gke": [],
  "uninstall/k3s": [],
  "uninstall/rke2": [],
};

await t.test("the manifests", async (t) => {
  const components = await need(t, { components: ["kubernetes"] });
  if (components === undefined) return;
  const built = new Map<string, readonly KubernetesObject[]>();
  for (const folder of await kustomizations())
    built.set(folder, await build(components("kubernetes"), folder));

  await t.test("are what they were (else look at the difference, and UPDATE_GOLDEN=1)", async (t) => {
    for (const [folder, objects] of built) {
      const file = join(GOLDEN, `${folder.replaceAll("/", "-")}.yaml`);
      if (process.env["UPDATE_GOLDEN"] === "1") {
        await writeFile(file, objects.map((object) => stringify(object)).join("---\n"));
      }
      t.strictSame(objects, parseObjects(await readFile(file, "utf8")), folder);
    }
  });

  await t.test("have each component in one of them at least", async (t) => {
    const { all, unused } = await componentFolders();
    t.ok(all.includes("components/gke"));
    t.same(unused, []);
  });

  await t.test("run on nodes that the image is made for", async (t) => {
    for (const [folder, objects] of built) {
      if (folder === "namespace") continue;
      const wanted = { "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64" };
      t.same(podOf(objects).nodeSelector, wanted, folder);
    }
  });

  await t.test("run this version of the image, with commands and settings that there are", async (t) => {
    const manifest = JSON.parse(await readFile(join(MANIFESTS, "../package.json"), "utf8"));
    for (const [folder, objects] of built) {
      if (folder === "namespace") continue;
      const { containers, initContainers } = podOf(objects);
      for (const container of [...containers, ...initContainers]) {
        const what = `${folder}: ${container.name}`;
        t.equal(container.image, `ghcr.io/p2p-mirror/p2p-mirror:v${manifest.version}`, what);
        const command = container.args.filter((arg) => !arg.startsWith("-"));
        const help = await run([...command, "--help"]);
        for (const arg of container.args.filter((one) => one.startsWith("--"))) {
          t.match(help.stdout, arg.replace(/=.*/, ""), what);
        }
        const settings = Object.keys(MIRROR_SCHEMA.properties).map((key) => ENV_PREFIX + key.toUpperCase());
        for (const { name } of container.env ?? []) {
          if (name !== `${ENV_PREFIX}CONFIG` && name !== "NAMESPACE")
            t.ok(settings.includes(name), `${what}: ${name}`);
        }
      }
    }
  });

  await t.test("show in the Pod's status why a program has ended", async (t) => {
    for (const [folder, objects] of built) {
      if (folder === "namespace") continue;
      const { containers, initContainers } = podOf(objects);
      for (const { name, terminationMessagePolicy } of [...containers, ...initContainers])
        t.equal(terminationMessagePolicy, "FallbackToLogsOnError", `${folder}: ${name}`);
    }
  });

  await t.test("give the mirror settings that are right, at the places where things are", async (t) => {
    for (const [folder, objects] of built) {
      if (folder.startsWith("uninstall/") || folder === "namespace") continue;
      const pod = podOf(objects);
      const [mirror, hosts] = [pod.containers[0], pod.initContainers[0]];
      if (mirror === undefined || hosts === undefined) throw new Error("two containers");
      const { config, warnings } = await configOf(t.testdir(), mirror, objects);
      t.same(warnings, [], folder);

      const mounts = new Map(mirror.volumeMounts?.map(({ name, mountPath }) => [name, mountPath]));
      for (const { name, hostPath } of pod.volumes) {
        // So that what the doctor says of a path is right on the node, too.
        if (hostPath !== undefined) t.equal(hostPath.path, mounts.get(name), `${folder}: ${name}`);
      }
      // Kubelet removes images at 85 % used, and evicts Pods with less than 15 % free. In a cluster that is thrown away it may.
      if (folder !== "overlays/dev") t.ok(amountOf(config.cacheMinFree, 100) > 15, `${folder}: least free`);
      t.equal(config.dataDir, mounts.get("data"), folder);
      t.equal(config.hostsDir, mounts.get("hosts"), folder);
      t.equal(environmentOf(hosts)["P2P_MIRROR_HOSTS_DIR"], config.hostsDir, folder);
      t.same(config.clusterSecretFiles, [mounts.get("secret")], folder);
      if (config.containerdSocket !== undefined) {
        t.ok(config.containerdSocket.startsWith(`${mounts.get("containerd-run")}/`), folder);
        t.equal(config.containerdConfig, `${mounts.get("containerd-config")}/config.toml`, folder);
      }
      t.equal(
        config.kubernetesApi === undefined,
        !mounts.has("account"),
        `${folder}: a token for whom needs it`,
      );

      const ports = Object.fromEntries(
        mirror.ports?.map(({ name, containerPort }) => [name, containerPort]) ?? [],
      );
      t.equal(ports["peer"], config.peerListen.port, folder);
      t.equal(ports["p2p"], config.p2pListen.port, folder);
      t.equal(ports["metrics"], config.metricsListen?.port, folder);
      for (const probe of [mirror.startupProbe, mirror.readinessProbe, mirror.livenessProbe]) {
        t.equal(probe?.httpGet.port, config.adminListen.port, folder);
      }
    }
  });

  await t.test("are removed from where they were", async (t) => {
    for (const [folder, objects] of built) {
      if (!folder.startsWith("uninstall/")) continue;
      const installed = podOf(
        built.get(folder.replace("uninstall/base", "base").replace("uninstall/", "overlays/")) ?? [],
      );
      const removal = podOf(objects);
      const [uninstall] = removal.initContainers;
      const onNode = (flag: string): string | undefined => {
        const path = uninstall?.args.find((arg) => arg.startsWith(`--${flag}=`))?.split("=")[1];
        const mount = uninstall?.volumeMounts?.find(({ mountPath }) => path?.startsWith(`${mountPath}/`));
        const volume = removal.volumes.find(({ name }) => name === mount?.name);
        return path?.replace(mount?.mountPath ?? "", volume?.hostPath?.path ?? "");
      };
      const volumeOf = (wanted: string): string | undefined =>
        installed.volumes.find(({ name }) => name === wanted)?.hostPath?.path;
      t.equal(onNode("hosts-dir"), volumeOf("hosts"), folder);
      t.equal(onNode("data-dir"), volumeOf("data"), folder);
    }
  });

  await t.test("are what the pages say to apply, from where they say to push the image", async (t) => {
    const [readme = "", operations = ""] = await Promise.all(
      ["README.md", "docs/operations.md"].map((file) => readFile(join(MANIFESTS, "..", file), "utf8")),
    );
    const pushed = /^skopeo copy oci:\.build\/image docker:\/\/(\S+)$/m.exec(readme)?.[1];
    for (const [page, count] of [
      [readme, 4],
      [operations, 4],
    ] as const) {
      const kustomization = /^```yaml\n(resources: \[\.\.\/manifests\/[^]*?)^```$/m.exec(page)?.[1] ?? "";
      // The first is the one that is written there, the others are in its comment.
      const folders = kustomization.match(/\b(?:base|(?:overlays|uninstall)\/\w+)/g) ?? [];
      t.equal(folders.length, count);
      for (const folder of folders) {
        // Beside the manifests, as there.
        const home = t.testdir({
          manifests: t.fixture("symlink", MANIFESTS),
          own: { "kustomization.yaml": kustomization.replace(/(?<=manifests\/)[\w/]+/, folder) },
        });
        const { containers, initContainers } = podOf(
          await build(components("kubernetes"), join(home, "own")),
        );
        const images = [...containers, ...initContainers].map(({ image }) => image);
        t.same(images, [pushed, pushed], folder);
      }
    }
  });

  await t.test("ask for the memory that is documented, and alert before there is no more", async (t) => {
    const page = await readFile(join(MANIFESTS, "../docs/operations.md"), "utf8");
    const alerting = built.get("overlays/example")?.filter(({ kind }) => kind === "PrometheusRule");
    const above = /process_resident_memory_bytes\S* > (\d+) \* 1024 \* 1024/.exec(JSON.stringify(alerting));
    for (const [folder, objects] of built) {
      if (folder.startsWith("uninstall/") || folder === "namespace") continue;
      const { requests, limits } = podOf(objects).containers[0]?.resources ?? {};
      t.match(page, `| memory  | request ${requests?.["memory"]}, limit ${limits?.["memory"]} `, folder);
      const [asked = NaN, most = NaN] = [requests, limits].map((one) =>
        Number.parseInt(one?.["memory"] ?? "", 10),
      );
      t.ok(
        asked < Number(above?.[1]) && Number(above?.[1]) < most,
        `${folder}: ${asked} < ${above?.[1]} < ${most} MiB`,
      );
    }
  });

  await t.test("have no rights that nobody needs", async (t) => {
    for (const [folder, objects] of built) {
      if (folder === "namespace") continue;
      const { containers, initContainers } = podOf(objects);
      for (const { name, securityContext } of [...containers, ...initContainers]) {
        t.same(
          securityContext,
          {
            runAsUser: 0,
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ["ALL"] },
          },
          `${folder}: ${name}`,
        );
      }
      const rules = objects
        .filter(({ kind }) => kind === "Role" || kind === "ClusterRole")
        .flatMap((role) => (role as unknown as { rules: { verbs: string[]; resources: string[] }[] }).rules)
        .flatMap(({ verbs, resources }) => `${verbs.join()} ${resources.join()}`);
      t.same(rules.toSorted(), RIGHTS[folder] ?? ["list endpointslices"], folder);
    }
  });
});

/** The settings as the mirror in the Pod finds them. */
async function configOf(
  dir: string,
  container: Container,
  objects: readonly KubernetesObject[],
): Promise<{ readonly config: MirrorConfig; readonly warnings: readonly string[] }> {
  const { configMap } = podOf(objects).volumes.find(({ name }) => name === "config") ?? {};
  const found = objects.find((one) => nameOf(one) === `ConfigMap p2p-mirror/${configMap?.name}`);
  const configPath = join(dir, "config.yaml");
  await writeFile(configPath, found?.data?.["config.yaml"] ?? "there is no such ConfigMap");
  const env = { ...environmentOf(container), P2P_MIRROR_CONFIG: configPath };
  return loadMirrorConfig({ flags: {}, env, configPath: undefined }, { allAddresses: "0.0.0.0" });
}
