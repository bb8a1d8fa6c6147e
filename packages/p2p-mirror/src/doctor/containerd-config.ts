import { glob, readFile, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { parse, TomlError, type TomlTable, type TomlValue } from "smol-toml";
import { isAtLeast, type Version } from "./check.ts";

/** What containerd's configuration says of how images are pulled. */
export interface ContainerdConfig {
  /** The files that were read, the main one first. */
  readonly files: readonly string[];
  /** The table that `config_path` belongs into, as a fix has to name it. */
  readonly registryTable: string;
  /** "": not set. */
  readonly configPath: string;
  readonly discardUnpackedLayers: boolean;
  /** Why images are pulled as by 1.7 and not by the transfer service: keys that are set. */
  readonly localPull: readonly string[];
  /** The deprecated `registry.mirrors`, `configs` and `auths` that are there. */
  readonly deprecated: readonly string[];
  /** Kubernetes' side of containerd is switched off. */
  readonly criDisabled: boolean;
}

const MAX_FILE_BYTES = 1024 * 1024;
const MAX_FILES = 64;
/** Names of the plugin by format of the file: 3 and later, 2, 1. */
const IMAGES = "io.containerd.cri.v1.images";
const CRI = ["io.containerd.grpc.v1.cri", "cri"] as const;

/** The configuration cannot be read; the message says which file, and why. */
export class UnreadableConfigError extends Error {
  override readonly name = "UnreadableConfigError";
}

/**
 * Reads config.toml and what it imports. A table of a plugin in an imported file replaces the one before it up to
 * containerd 1.7, and is put over it key by key from 2.0 on (seen with `containerd config dump` of 1.7.24, 2.1.9, 2.4.2).
 * @param version undefined: not known, as the newest
 * @throws UnreadableConfigError
 */
export async function readContainerdConfig(
  file: string,
  version: Version | undefined,
): Promise<ContainerdConfig> {
  const merges = version === undefined || isAtLeast(version, 2, 0);
  // From 2.2 on these are read without being named.
  const usual =
    version === undefined || isAtLeast(version, 2, 2) ? [join(dirname(file), "conf.d/*.toml")] : [];
  const texts = await readAll(file, usual);
  let plugins: TomlTable = {};
  const disabled = new Set<string>();
  for (const table of texts.values()) {
    for (const one of listOf(table.disabled_plugins)) if (typeof one === "string") disabled.add(one);
    const own = tableOf(table.plugins);
    plugins = merges ? deepMerge(plugins, own) : { ...plugins, ...own };
  }
  const images = tableOf(plugins[IMAGES]);
  const cri = CRI.map((name) => tableOf(plugins[name])).find((one) => Object.keys(one).length > 0) ?? {};
  const isNew = version === undefined || isAtLeast(version, 2, 0);
  const registry = { ...tableOf(cri.registry), ...tableOf(images.registry) };
  const deprecated = ["mirrors", "configs", "auths"].filter(
    (key) => Object.keys(tableOf(registry[key])).length > 0,
  );
  const max = images.max_concurrent_downloads ?? cri.max_concurrent_downloads;
  return {
    files: [...texts.keys()],
    registryTable: isNew ? `plugins."${IMAGES}".registry` : `plugins."${CRI[0]}".registry`,
    configPath: typeof registry.config_path === "string" ? registry.config_path : "",
    discardUnpackedLayers:
      images.discard_unpacked_layers === true ||
      tableOf(cri.containerd).discard_unpacked_layers === true ||
      cri.discard_unpacked_layers === true,
    localPull: [
      ...(images.use_local_image_pull === true ? ["use_local_image_pull"] : []),
      ...(images.disable_snapshot_annotations === false ? ["disable_snapshot_annotations"] : []),
      ...(images.discard_unpacked_layers === true ? ["discard_unpacked_layers"] : []),
      ...(max === undefined || Number(max) === 3 ? [] : ["max_concurrent_downloads"]),
      ...(images.image_pull_with_sync_fs === true ? ["image_pull_with_sync_fs"] : []),
      ...deprecated.map((key) => `registry.${key}`),
    ],
    deprecated,
    criDisabled: [CRI[0], "cri", IMAGES].some((name) => disabled.has(name)),
  };
}

async function readAll(main: string, usual: readonly string[]): Promise<Map<string, TomlTable>> {
  const found = new Map<string, TomlTable>();
  const read = async (file: string): Promise<void> => {
    if (found.has(file)) return;
    if (found.size >= MAX_FILES)
      throw new UnreadableConfigError(`${main} imports more than ${MAX_FILES} files`);
    const table = await readToml(file);
    found.set(file, table);
    const patterns = listOf(table.imports).flatMap((one) => (typeof one === "string" ? [one] : []));
    for (const pattern of file === main ? [...usual, ...patterns] : patterns) {
      const path = resolve(dirname(file), pattern);
      const matches = /[*?[]/.test(path) ? (await matchesOf(path)).toSorted() : [path];
      for (const match of matches) await read(match);
    }
  };
  await read(main);
  return found;
}

async function matchesOf(pattern: string): Promise<string[]> {
  const found: string[] = [];
  for await (const path of glob(pattern)) found.push(path);
  return found;
}

async function readToml(file: string): Promise<TomlTable> {
  try {
    const { size } = await stat(file);
    if (size > MAX_FILE_BYTES) throw new UnreadableConfigError(`${file} is larger than 1 MiB`);
    return parse(await readFile(file, "utf8"));
  } catch (error) {
    if (error instanceof UnreadableConfigError) throw error;
    const why =
      error instanceof TomlError
        ? `no TOML, line ${error.line}`
        : error instanceof Error
          ? error.message
          : "";
    throw new UnreadableConfigError(`${file} cannot be read: ${why}`, { cause: error });
  }
}

const isTable = (value: TomlValue | undefined): value is TomlTable =>
  typeof value === "object" && !Array.isArray(value) && !(value instanceof Date);
const tableOf = (value: TomlValue | undefined): TomlTable => (isTable(value) ? value : {});
const listOf = (value: TomlValue | undefined): readonly TomlValue[] => (Array.isArray(value) ? value : []);

function deepMerge(below: TomlTable, above: TomlTable): TomlTable {
  const merged: TomlTable = { ...below };
  for (const [key, value] of Object.entries(above)) {
    const before = merged[key];
    merged[key] = isTable(before) && isTable(value) ? deepMerge(before, value) : value;
  }
  return merged;
}
