/**
 * `npm run release:keep -- REF`, by default HEAD: keeps the program of a commit, its own sources and nothing of others, as
 * `test/releases/VERSION.tar.gz` in place of the one that was kept before. The same commit gives the same bytes.
 */
import { execFile } from "node:child_process";
import { readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { RELEASES } from "./last-release.ts";

const run = promisify(execFile);
const MAX_BYTES = 64 * 1024 * 1024;
const CHECKOUT = path.resolve(import.meta.dirname, "../..");
const SOURCES = [":(glob)packages/*/src/**", ":(glob)packages/*/package.json"];

const git = async (...args: string[]): Promise<Buffer> => {
  const options = { cwd: CHECKOUT, encoding: "buffer", maxBuffer: MAX_BYTES } as const;
  return (await run("git", args, options)).stdout;
};

const [ref = "HEAD"] = process.argv.slice(2);
const manifest: unknown = JSON.parse(
  (await git("show", `${ref}:packages/p2p-mirror/package.json`)).toString(),
);
if (typeof manifest !== "object" || manifest === null || !("version" in manifest)) {
  throw new TypeError(`${ref} has no version`);
}
const archive = await git("archive", "--format=tar", ref, "--", ...SOURCES);
for (const name of await readdir(RELEASES)) await rm(path.join(RELEASES, name));
const file = path.join(RELEASES, `${String(manifest.version)}.tar.gz`);
await writeFile(file, gzipSync(archive, { level: 9 }));
console.log(path.relative(process.cwd(), file));
