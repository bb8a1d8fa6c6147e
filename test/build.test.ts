import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import t from "tap";
import { loneMirror, readyUrls, startChild } from "../packages/p2p-mirror/test/cli/child.ts";

const ROOT = join(import.meta.dirname, "..");
const MAIN = join(ROOT, "packages/p2p-mirror/dist/main.js");

// As in production: compiled JavaScript, no type stripping, packages resolved without the source condition.
const compiled = { main: MAIN, nodeArgs: [] };

await t.test("npm run build emits a program that runs by itself", async (t) => {
  const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
  await promisify(execFile)(process.execPath, [tsc, "-b", "tsconfig.build.json"], { cwd: ROOT });

  const help = startChild(t, ["serve", "--help"], compiled);
  t.equal(await help.ended, 0);
  t.match(help.stdout(), /--registry-listen <HOST:PORT>/);

  const mirror = startChild(t, loneMirror(t.testdir()), compiled);
  const { registry, admin } = await readyUrls(mirror);
  t.equal((await fetch(`${registry}/v2/`)).status, 200);
  const status = startChild(t, ["status", "--admin", admin], compiled);
  t.equal(await status.ended, 0);
  t.match(status.stdout(), /^node 12D3Koo/);
  mirror.process.kill("SIGTERM");
  t.equal(await mirror.ended, 0);
  t.notMatch(mirror.stderr(), /Warning/);
});
