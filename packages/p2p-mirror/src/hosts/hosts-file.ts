import { isDeepStrictEqual } from "node:util";
import { parse, type TomlTable, type TomlValue } from "smol-toml";

/** Nobody's hosts.toml is larger, and parsing takes time. */
export const MAX_HOSTS_BYTES = 1024 * 1024;

export interface HostsFile {
  /** Where containerd goes last. Undefined: to the registry itself. */
  readonly server: string | undefined;
  /** URL to settings, in the order in which containerd asks them: that of the file. */
  readonly hosts: ReadonlyMap<string, TomlTable>;
  /** Everything but the hosts: `server` and what is set for it (`ca`, `header`, …). */
  readonly root: TomlTable;
}

const isTable = (value: TomlValue | undefined): value is TomlTable =>
  typeof value === "object" && !Array.isArray(value) && !(value instanceof Date);

/**
 * What a hosts.toml says.
 * @throws TomlError: containerd logs such a file and goes to the registry itself
 * (containerd, core/remotes/docker/config/hosts.go, `loadHostDir`).
 */
export function parseHostsFile(text: string): HostsFile {
  const { host, ...root } = parse(text);
  const hosts = new Map<string, TomlTable>();
  for (const [url, settings] of isTable(host) ? Object.entries(host) : []) {
    if (isTable(settings)) hosts.set(url, settings);
  }
  return { server: typeof root.server === "string" ? root.server : undefined, hosts, root };
}

/** True when `after` is `before` with `url` as one more host, asked first: nothing that was there has changed. */
export function addsFirst(before: HostsFile, after: HostsFile, url: string): boolean {
  const [first, ...others] = after.hosts;
  return (
    first?.[0] === url &&
    isDeepStrictEqual(others, [...before.hosts]) &&
    isDeepStrictEqual(after.root, before.root)
  );
}
