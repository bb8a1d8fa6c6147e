import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { loneMirror, readyUrls, startChild } from "../packages/p2p-mirror/test/cli/child.ts";
import { makeImage, pushImage } from "./rig/images.ts";
import { startOciRegistry } from "./rig/oci-registry.ts";

const ROOT = join(import.meta.dirname, "..");
const MAIN = join(ROOT, "packages/p2p-mirror/dist/main.js");

// As in production: compiled JavaScript, no type stripping, packages resolved without the source condition.
const compiled = { main: MAIN, nodeArgs: [] };

await t.test(
  "npm run build emits a program that runs by itself: help, serve, pull, ls, status",
  async (t) => {
    const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
    // The runner hooks the loading of modules in every child by NODE_OPTIONS, which the compiler's program cannot stand.
    const argv = ["-u", "NODE_OPTIONS", process.execPath, tsc, "-b", "tsconfig.build.json"];
    await promisify(execFile)("env", argv, { cwd: ROOT });

    const help = startChild(t, ["serve", "--help"], compiled);
    t.equal(await help.ended, 0);
    t.match(help.stdout(), /--registry-listen <HOST:PORT>/);

    const registry = await startOciRegistry();
    t.teardown(() => registry.close());
    const image = makeImage({ seed: "build test", layers: [3_000_000, 1_000_000] });
    await pushImage(image, { registry: registry.url, repository: "team/app", tags: ["v1"] });

    const upstream = `--upstream=registry.example=${registry.url}`;
    const mirror = startChild(t, [...loneMirror(t.testdir()), upstream], compiled);
    const urls = await readyUrls(mirror);
    const pull = async (): Promise<string> => {
      const child = startChild(
        t,
        ["pull", "registry.example/team/app:v1", "--registry", urls.registry],
        compiled,
      );
      t.equal(await child.ended, 0, child.stderr());
      return child.stdout();
    };
    t.match(
      await pull(),
      /^registry.example\/team\/app:v1@sha256:\w{64}\n\d manifests?, 3 blobs, 3.8 MiB verified in /,
    );

    const ls = startChild(t, ["ls", "--admin", urls.admin], compiled);
    t.equal(await ls.ended, 0);
    t.match(ls.stdout(), /^registry.example\/team\/app:v1 +sha256:/m);
    const status = startChild(t, ["status", "--admin", urls.admin], compiled);
    t.equal(await status.ended, 0);
    t.match(status.stdout(), /^node 12D3Koo[\s\S]*^registry.example +ok/m);

    await registry.kill();
    t.match(await pull(), /3 blobs, 3.8 MiB verified/, "the registry is gone, the image is not");

    mirror.process.kill("SIGTERM");
    t.equal(await mirror.ended, 0);
    t.notMatch(mirror.stderr(), /Warning/);
  },
);
