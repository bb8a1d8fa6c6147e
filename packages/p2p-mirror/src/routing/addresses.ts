import { isIP } from "node:net";
import { networkInterfaces, type NetworkInterfaceInfo } from "node:os";
import { multiaddr, type Multiaddr } from "@multiformats/multiaddr";
import { ConfigError } from "@p2p-mirror/shared";

export interface HostPort {
  readonly host: string;
  readonly port: number;
}

const family = (host: string): "ip4" | "ip6" => (isIP(host) === 6 ? "ip6" : "ip4");

export const tcpMultiaddr = ({ host, port }: HostPort): Multiaddr =>
  multiaddr(`/${family(host)}/${host}/tcp/${port}`);

/**
 * Where a node's peer data plane listens, announced beside its libp2p address: libp2p does not dial what it has no
 * transport for, and hands it on wherever the node's addresses go (identify, peer store, provider records).
 */
export const dataPlaneMultiaddr = ({ host, port }: HostPort): Multiaddr =>
  multiaddr(`/${family(host)}/${host}/tcp/${port}/tls/http`);

/** Reads what a peer announced: exactly ip, tcp, tls, http (and the peer's own ID); anything else is no data plane. */
export function dataPlaneOf(addresses: readonly Multiaddr[]): HostPort | undefined {
  for (const address of addresses) {
    const [ip, tcp, tls, http, id, rest] = address.getComponents();
    if (tls?.name !== "tls" || http?.name !== "http" || tcp?.name !== "tcp") continue;
    if (rest !== undefined || (id !== undefined && id.name !== "p2p")) continue;
    const port = Number(tcp.value);
    if (ip?.value === undefined || isIP(ip.value) === 0) continue;
    if (Number.isInteger(port) && port > 0 && port < 65_536) return { host: ip.value, port };
  }
  return undefined;
}

/** The libp2p address a node announced: exactly ip, tcp (and its own ID, which is taken off). */
export function libp2pAddressOf(addresses: readonly Multiaddr[]): HostPort | undefined {
  for (const address of addresses) {
    const [ip, tcp, id, rest] = address.getComponents();
    if (tcp?.name !== "tcp" || rest !== undefined || (id !== undefined && id.name !== "p2p")) continue;
    if (ip?.value !== undefined && isIP(ip.value) !== 0) return { host: ip.value, port: Number(tcp.value) };
  }
  return undefined;
}

const HOST_PORT = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s/]+)):(\d{1,5})$/;

/** Reads `host:port` or `[ipv6]:port`. @throws ConfigError that names the field. */
export function parseHostPort(text: string, field: string): HostPort {
  const match = HOST_PORT.exec(text.trim());
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port < 1 || port > 65_535) {
    throw new ConfigError(field, text.slice(0, 200), "write HOST:PORT, an IPv6 address in brackets");
  }
  return { host, port };
}

const isWildcard = (host: string): boolean => host === "0.0.0.0" || host === "::";

/** Interfaces of containers and virtual machines on this host: addresses on them mean nothing to other hosts. */
const LOCAL_INTERFACE =
  /^(?:docker|br-|veth|cni|cali|flannel|cilium|lxc|lxd|virbr|vnet|kube-ipvs|nodelocaldns|tunl|dummy)/;

/**
 * The address other nodes are told: the given one; else the one that is listened on; else, when that is all of them,
 * the first of this host that is not internal, IPv4 before IPv6, without link-local ones and those of container bridges.
 * Loopback when there is none.
 */
export function advertiseAddress(
  listenHost: string,
  given?: string,
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]> = networkInterfaces(),
): string {
  if (given !== undefined) return given;
  if (!isWildcard(listenHost)) return listenHost;
  const candidates = Object.entries(interfaces)
    .filter(([name]) => !LOCAL_INTERFACE.test(name))
    .flatMap(([, addresses]) => addresses ?? [])
    .filter(
      (one) => !one.internal && !one.address.startsWith("fe80:") && !one.address.startsWith("169.254."),
    );
  const found =
    candidates.find((one) => one.family === "IPv4") ??
    (listenHost === "::" ? candidates.find((one) => one.family === "IPv6") : undefined);
  return found?.address ?? "127.0.0.1";
}
