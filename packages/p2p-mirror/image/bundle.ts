import { dirname, join } from "node:path";
import { build, type Metafile } from "esbuild";
import { partOfUndici } from "./part-of-undici.ts";
import { plainOrder } from "./plain-order.ts";

export interface Bundle {
  /** Names relative to the folder of the program, such as `main.js`. */
  readonly files: ReadonlyMap<string, Buffer>;
  /** Folders of the npm packages that are in it, relative to the checkout, sorted. */
  readonly packages: readonly string[];
}

const ENTRY = "packages/p2p-mirror/src/main.ts";

/**
 * What CommonJS packages expect to find, and modules do not have. Under names of its own where a package may declare
 * the same.
 */
const BANNER = [
  'import { createRequire as createRequireOfBundle } from "node:module";',
  "const require = createRequireOfBundle(import.meta.url);",
  "const __dirname = import.meta.dirname, __filename = import.meta.filename;",
].join("\n");

/**
 * The program and all it needs, as one file for each part that is loaded by itself. Only what is used is in it, and
 * comments are not: V8 keeps the text of what it has loaded, and as two bytes for each character where one character
 * of a file needs them, so everything is written in ASCII. Names stay, for stack traces.
 */
export async function bundle(checkout: string): Promise<Bundle> {
  const { outputFiles, metafile } = await build({
    absWorkingDir: checkout,
    entryPoints: { main: ENTRY },
    outdir: "program",
    write: false,
    metafile: true,
    bundle: true,
    splitting: true,
    platform: "node",
    format: "esm",
    target: "node24",
    // The sources of the workspace's packages, not what somebody has built of them some day.
    conditions: ["@p2p-mirror/source"],
    chunkNames: "[name]-[hash]",
    charset: "ascii",
    legalComments: "none",
    minifySyntax: true,
    minifyWhitespace: true,
    banner: { js: BANNER },
    plugins: [partOfUndici(join(checkout, PACKAGE)), plainOrder],
    logLevel: "error",
  });
  const home = join(checkout, "program");
  const files = new Map(
    outputFiles.map(({ path, contents }) => [path.slice(home.length + 1), Buffer.from(contents)]),
  );
  return { files, packages: packagesOf(metafile) };
}

function packagesOf({ inputs }: Metafile): string[] {
  const folders = new Set<string>();
  for (const input of Object.keys(inputs)) {
    // Made by a plugin, of files that are inputs themselves.
    if (/^[\w-]+:/.test(input)) continue;
    // Up to the last one: packages bring packages of their own. A scope is part of the name.
    const [folder] = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input) ?? [];
    if (folder !== undefined) folders.add(folder);
  }
  return [...folders].toSorted();
}

/** The folder of the entry's package, which the program looks for beside its own. */
export const PACKAGE = dirname(dirname(ENTRY));
