import { mkdir, rename, writeFile } from "node:fs/promises";
import path from "node:path";

export interface HostEntry {
  readonly url: string;
  readonly capabilities?: readonly string[];
  /** PEM file. */
  readonly ca?: string;
  readonly skipVerify?: boolean;
  readonly overridePath?: boolean;
  readonly headers?: Readonly<Record<string, string>>;
  /** From 2.1 on, a Go duration. */
  readonly dialTimeout?: string;
}

export interface HostsFile {
  /** Upstream, asked last. Without it containerd asks https://<registry>. */
  readonly server?: string;
  /** Asked in this order. */
  readonly mirrors: readonly (string | HostEntry)[];
}

/**
 * Writes the hosts.toml of one registry ("reg.example.test", "host:5000" or "_default") the way an administrator would.
 * containerd reads it at each pull. Gives the file's path.
 */
export async function writeHosts(certsDir: string, registry: string, hosts: HostsFile): Promise<string> {
  const folder = path.join(certsDir, registry);
  await mkdir(folder, { recursive: true });
  const lines = hosts.server === undefined ? [] : [`server = ${JSON.stringify(hosts.server)}`];
  // containerd 1.7 refuses a file without any host, and then asks https://<registry> instead of the server it names.
  const mirrors = hosts.mirrors.length > 0 || hosts.server === undefined ? hosts.mirrors : [hosts.server];
  for (const host of mirrors) {
    const entry: HostEntry = typeof host === "string" ? { url: host } : host;
    const section = `host.${JSON.stringify(entry.url)}`;
    lines.push("", `[${section}]`);
    lines.push(`  capabilities = ${JSON.stringify(entry.capabilities ?? ["pull", "resolve"])}`);
    if (entry.ca !== undefined) lines.push(`  ca = ${JSON.stringify(entry.ca)}`);
    if (entry.skipVerify !== undefined) lines.push(`  skip_verify = ${entry.skipVerify}`);
    if (entry.overridePath !== undefined) lines.push(`  override_path = ${entry.overridePath}`);
    if (entry.dialTimeout !== undefined) lines.push(`  dial_timeout = ${JSON.stringify(entry.dialTimeout)}`);
    if (entry.headers !== undefined) {
      lines.push(`  [${section}.header]`);
      for (const [name, value] of Object.entries(entry.headers)) {
        lines.push(`    ${JSON.stringify(name)} = ${JSON.stringify(value)}`);
      }
    }
  }
  const file = path.join(folder, "hosts.toml");
  await writeFile(`${file}.new`, `${lines.join("\n")}\n`);
  await rename(`${file}.new`, file);
  return file;
}
