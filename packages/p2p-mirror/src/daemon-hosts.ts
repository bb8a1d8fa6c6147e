import { stat } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { codeOf, ConfigError, hideUrlSecrets, type Logger } from "@p2p-mirror/shared";
import { isAllAddresses, isLoopback, type HostPort } from "@p2p-mirror/shared/config";
import type { MirrorConfig } from "./config/mirror-config.ts";
import type { HostsStatus } from "./hosts/hosts.ts";
import type { HostsDirectoryStatus } from "./status.ts";
import { AdministratorsHosts } from "./hosts/administrators-hosts.ts";

/**
 * What the administrator has in `hosts_dir`, read once. Undefined: no such directory was named. One that is not there may
 * come later, with containerd.
 * @throws ConfigError when it is no directory
 */
export async function administratorsHosts(
  { hostsDir, registryListen }: MirrorConfig,
  deps: { readonly logger: Logger },
): Promise<AdministratorsHosts | undefined> {
  if (hostsDir === undefined) return undefined;
  const fits = await stat(hostsDir).then(
    (found) => found.isDirectory(),
    (error: unknown) => codeOf(error) === "ENOENT",
  );
  if (!fits)
    throw new ConfigError("hosts-dir", hostsDir, "give the directory that containerd's config_path names");
  const hosts = new AdministratorsHosts({ hostsDir, isSelf: (url) => leadsTo(registryListen, url) }, deps);
  await hosts.read();
  return hosts;
}

/** Whether a URL is of the address a server of this machine listens at. Names are not asked for. */
export function leadsTo(listen: HostPort, text: string): boolean {
  const url = new URL(text);
  const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
  if (port !== listen.port) return false;
  const host = url.hostname.replaceAll(/^\[|\]$/g, "");
  if (host === listen.host) return true;
  const isOwnLoopback = isLoopback(host);
  if (!isAllAddresses(listen.host)) return isOwnLoopback && isLoopback(listen.host);
  const own = Object.values(networkInterfaces()).flatMap((all) => all?.map(({ address }) => address) ?? []);
  return isOwnLoopback || own.includes(host);
}

/** As the status shows it: what an administrator has in an address to log in with stays in the file. */
export const shownHosts = (status: readonly HostsStatus[]): HostsDirectoryStatus[] =>
  status.map((one) => ({ ...one, asks: one.asks.map(hideUrlSecrets) }));
