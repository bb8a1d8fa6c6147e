import { mkdir, readdir, symlink } from "node:fs/promises";
import path from "node:path";
import { programOfImage } from "../../bench/lib/programs.ts";
import { bundle } from "../../packages/p2p-mirror/image/bundle.ts";
import { PROGRAM, programFiles } from "../../packages/p2p-mirror/image/mirror-image.ts";
import type { Image } from "../../packages/p2p-mirror/image/oci-layout.ts";
import { exec } from "./exec.ts";

/** Holds one archive of sources, named by its version; `keep-release.ts` makes it. */
export const RELEASES = path.resolve(import.meta.dirname, "../releases");

const CHECKOUT = path.resolve(import.meta.dirname, "../..");
const WORKSPACE = "@p2p-mirror";

export interface Program {
  readonly version: string;
  /** What Node runs. */
  readonly main: string;
}

/** Version of the release that is kept. @throws Error unless there is exactly one */
export async function lastVersion(): Promise<string> {
  const [version, ...others] = (await readdir(RELEASES)).map((name) => name.replace(/\.tar\.gz$/, ""));
  if (version === undefined || others.length > 0) throw new Error(`${RELEASES} must hold one release`);
  return version;
}

/** The program of the last release, built in a new folder from its own sources and the packages that are installed here. */
export async function lastRelease(folder: string): Promise<Program> {
  const { version, checkout } = await unpack(folder);
  return { version, main: await programOfImage(folder, checkout) };
}

/** This checkout's container image with the program of the last release in place of its own. */
export async function withLastRelease(image: Image, folder: string): Promise<Image> {
  const { checkout } = await unpack(folder);
  const { files } = await bundle(checkout);
  const layers = image.layers.map((layer) => {
    const rest = layer.entries.filter((entry) => !entry.path.startsWith(`${PROGRAM}/`));
    return rest.length === layer.entries.length
      ? layer
      : { ...layer, entries: [...rest, ...programFiles(files)] };
  });
  return { ...image, layers };
}

/** Its sources, beside the packages that are installed here. */
async function unpack(folder: string): Promise<{ readonly version: string; readonly checkout: string }> {
  const version = await lastVersion();
  const checkout = path.join(folder, "checkout");
  await mkdir(checkout, { recursive: true });
  await exec(["tar", "-xzf", path.join(RELEASES, `${version}.tar.gz`), "-C", checkout]);
  await linkPackages(checkout);
  return { version, checkout };
}

/** All but the packages of the workspace, which are the release's own. */
async function linkPackages(checkout: string): Promise<void> {
  for (const home of ["", ...(await packagesOf(checkout))]) {
    const installed = path.join(CHECKOUT, home, "node_modules");
    const names = await readdir(installed).catch(() => []);
    if (names.length === 0) continue;
    const modules = path.join(checkout, home, "node_modules");
    await mkdir(modules);
    for (const name of names.filter((one) => one !== WORKSPACE)) {
      await symlink(path.join(installed, name), path.join(modules, name));
    }
  }
  const own = path.join(checkout, "node_modules", WORKSPACE);
  await mkdir(own);
  for (const home of await packagesOf(checkout)) {
    await symlink(path.join(checkout, home), path.join(own, path.basename(home)));
  }
}

const packagesOf = async (checkout: string): Promise<string[]> =>
  (await readdir(path.join(checkout, "packages"))).map((name) => path.join("packages", name));
