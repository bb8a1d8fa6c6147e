import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { file, type Entry } from "./entries.ts";

/** An npm package whose code is in the program. */
export interface NpmPackage {
  readonly name: string;
  readonly version: string;
  /** SPDX expression, as the package says it; "" where it says none. */
  readonly licence: string;
  /** `sha512-…` of the package as it was downloaded, by package-lock.json. */
  readonly integrity: string | undefined;
  readonly licences: readonly Entry[];
}

interface Lock {
  readonly packages: Readonly<Record<string, { readonly integrity?: string }>>;
}

/** @param folders relative to the checkout, such as `node_modules/pino` */
export async function npmPackages(checkout: string, folders: readonly string[]): Promise<NpmPackage[]> {
  const lock: Lock = JSON.parse(await readFile(join(checkout, "package-lock.json"), "utf8"));
  const found = await Promise.all(
    folders.map(async (folder) => {
      const manifest: { name: string; version: string; license?: string } = JSON.parse(
        await readFile(join(checkout, folder, "package.json"), "utf8"),
      );
      const { name, version, license: licence = "" } = manifest;
      const target = `usr/share/licenses/npm/${name}-${version}`;
      return {
        name,
        version,
        licence,
        integrity: lock.packages[folder]?.integrity,
        licences: await licencesIn(join(checkout, folder), target, `${name} ${version}: ${licence}\n`),
      };
    }),
  );
  // npm puts a package into several places where others of its name stand in the way.
  return [...new Map(found.map((one) => [`${one.name}@${one.version}`, one])).values()];
}

/** The files with a licence by name, of which some packages have several, or else `otherwise`: what the package says. */
export async function licencesIn(folder: string, target: string, otherwise: string): Promise<Entry[]> {
  const names = (await readdir(folder, { withFileTypes: true }))
    .filter((entry) => entry.isFile() && /^(licen[cs]e|copying|notice|patents)\b/i.test(entry.name))
    .map((entry) => entry.name);
  if (names.length === 0) return [file(`${target}/LICENSE`, otherwise)];
  return Promise.all(
    names.map(async (name) => file(`${target}/${name}`, await readFile(join(folder, name)))),
  );
}
