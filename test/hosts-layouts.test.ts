/**
 * Real containerds pull through certs.d as it is found on nodes, once `hosts install` has put the mirror in front: every
 * layout, the mirror asked first, or where it keeps away, the registry as before; then `hosts remove`, and nothing is left.
 */
import { generateKeyPairSync } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import t from "tap";
import { installHosts, removeHosts } from "../packages/p2p-mirror/src/hosts/hosts.ts";
import { createCertificate } from "../packages/p2p-mirror/src/trust/certificate.ts";
import { LAYOUTS, layoutsLeftAlone, PEM } from "../packages/p2p-mirror/test/hosts/layouts.ts";
import { layOut, treeOf } from "../packages/p2p-mirror/test/hosts/tree.ts";
import { startEndpoint } from "../packages/p2p-mirror/test/http/support/endpoint.ts";
import type { ComponentName } from "./rig/components.ts";
import { startContainerd } from "./rig/containerd.ts";
import { createCri } from "./rig/cri.ts";
import { tryExec, type ExecResult } from "./rig/exec.ts";
import { blobsOf, makeImage, manifestsOf, pushImage } from "./rig/images.ts";
import { need } from "./rig/need.ts";
import { startOciRegistry } from "./rig/oci-registry.ts";

const CONTAINERDS: readonly ComponentName[] = ["containerd-1.7", "containerd-2.1", "containerd-2.x"];

function makePem(): ReadonlyMap<string, string> {
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  const certificate = createCertificate({
    subject: "a",
    issuer: "a",
    publicKey,
    signer: privateKey,
    ca: true,
  });
  const key = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  return new Map([
    [PEM.certificate, certificate],
    [PEM.key, key],
    [PEM.both, certificate + key],
  ]);
}

/** `hosts install` where nothing can be written: a disk that is read-only for this one process, though it is root's. */
const installReadOnly = (certsDir: string): Promise<ExecResult> => {
  const program = join(import.meta.dirname, "../packages/p2p-mirror/src/main.ts");
  const install = ["hosts", "install", "--hosts-dir", certsDir, "--mirror", "http://127.0.0.1:1"];
  const script = 'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; exec "$@"';
  const unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, certsDir];
  return tryExec([...unshare, process.execPath, "--conditions=@p2p-mirror/source", program, ...install]);
};

for (const name of CONTAINERDS) {
  await t.test(name, async (t) => {
    const components = await need(t, { root: true, components: [name] });
    if (components === undefined) return;
    await using containerd = await startContainerd({ component: components(name) });
    await using cri = createCri(containerd.socket);
    const mirror = await startEndpoint(t, {});
    const image = makeImage({ seed: "layouts", layers: [1000] });
    for (const { bytes } of manifestsOf(image))
      mirror.content.addManifest(JSON.parse(bytes.toString()), "v1");
    for (const { bytes } of blobsOf(image)) mirror.content.addBlob(bytes);
    const upstream = await startOciRegistry();
    t.teardown(() => upstream.close());
    // By this name containerd asks by plain HTTP whom no hosts.toml tells it otherwise.
    const leftAlone = layoutsLeftAlone(`localhost:${upstream.port}`, upstream.url);
    const hosts = { hostsDir: containerd.certsDir, mirror: mirror.url, registries: [] };
    const pem = makePem();

    for (const [index, layout] of [...LAYOUTS, ...leftAlone].entries()) {
      await t.test(layout.name, async (t) => {
        await rm(containerd.certsDir, { recursive: true, force: true });
        await layOut(containerd.certsDir, layout, pem);
        await mkdir(containerd.certsDir, { recursive: true });
        const before = await treeOf(containerd.certsDir);
        await installHosts(hosts);
        mirror.content.asked.length = 0;
        const repository = `layouts/n${index}`;
        const name = `${layout.registry}/${repository}:v1`;
        const pulling = (): Promise<string> => cri.pull(name, { timeoutMs: 30_000 });
        if (layout.noPull !== undefined) {
          await t.rejects(pulling(), { message: layout.noPull });
          t.same(mirror.content.asked, []);
        } else if (layout.leftAlone?.includes(layout.registry) === true) {
          await pushImage(image, { registry: upstream.url, repository, tags: ["v1"] });
          upstream.forget();
          await pulling();
          t.ok(upstream.requests.length > 0, "the registry was asked");
          t.same(mirror.content.asked, [], "and the mirror was not");
        } else {
          await pulling();
          t.equal(mirror.content.asked[0], `tag ${name}`, "the mirror was asked first");
        }
        await removeHosts(hosts);
        t.strictSame(await treeOf(containerd.certsDir), before);
      });
    }

    await t.test("a read-only directory: it is said, and containerd asks whom it asked", async (t) => {
      const { certsDir } = containerd;
      await rm(certsDir, { recursive: true, force: true });
      const files = { "reg.example.test/hosts.toml": `[host."${mirror.url}"]\n` };
      await layOut(certsDir, { name: "read-only", registry: "reg.example.test", files });
      const before = await treeOf(certsDir);
      const { code, stdout } = await installReadOnly(certsDir);
      t.equal(code, 1);
      t.match(stdout, /^_default +left alone .*EROFS.*\nreg\.example\.test +left alone .*EROFS/m);
      t.strictSame(await treeOf(certsDir), before);
      await cri.pull("reg.example.test/layouts/read-only:v1", { timeoutMs: 30_000 });
    });
  });
}
