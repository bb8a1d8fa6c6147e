import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { isIP, isIPv6 } from "node:net";
import { networkInterfaces, type NetworkInterfaceInfo } from "node:os";
import { multiaddr, type Multiaddr } from "@multiformats/multiaddr";
import { ConfigError, listenError, type Logger } from "@p2p-mirror/shared";
import { isAllAddresses } from "@p2p-mirror/shared/config";

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

/** Interfaces of containers and virtual machines on this host: addresses on them mean nothing to other hosts. */
const LOCAL_INTERFACE =
  /^(?:docker|br-|veth|cni|cali|flannel|cilium|lxc|lxd|virbr|vnet|kube-ipvs|nodelocaldns|tunl|dummy)/;

const usable = ({ internal, address }: NetworkInterfaceInfo): boolean =>
  !internal && !address.startsWith("fe80:") && !address.startsWith("169.254.");

/** This host's addresses that may mean something to others: not internal, link-local or of container bridges. */
export function candidateAddresses(
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]> = networkInterfaces(),
): NetworkInterfaceInfo[] {
  return Object.entries(interfaces)
    .filter(([name]) => !LOCAL_INTERFACE.test(name))
    .flatMap(([, addresses]) => addresses ?? [])
    .filter(usable);
}

/**
 * The address other nodes are told: the given one; else the one that is listened on; else, when that is all of them, the
 * one this host has on its default route (`routed`); without such a route the first of the candidates, IPv4 before IPv6.
 * Loopback when there is none.
 */
export function advertiseAddress(
  listenHost: string,
  given?: string,
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]> = networkInterfaces(),
  routed?: string,
): string {
  if (given !== undefined) return given;
  if (!isAllAddresses(listenHost)) return listenHost;
  const isRouted = (one: NetworkInterfaceInfo): boolean => one.address === routed && usable(one);
  if (
    routed !== undefined &&
    Object.values(interfaces)
      .flat()
      .some((one) => one !== undefined && isRouted(one))
  )
    return routed;
  const candidates = candidateAddresses(interfaces);
  const found =
    candidates.find((one) => one.family === "IPv4") ??
    (isIPv6(listenHost) ? candidates.find((one) => one.family === "IPv6") : undefined);
  return found?.address ?? "127.0.0.1";
}

/** libp2p listens at addresses only: a name becomes one of this machine. @throws ConfigError when it has none. */
export async function resolveListen(listen: HostPort): Promise<HostPort> {
  if (isIP(listen.host) !== 0) return listen;
  try {
    return { host: (await lookup(listen.host)).address, port: listen.port };
  } catch (error) {
    throw listenError(error, "p2p-listen", listen);
  }
}

/** Addresses nobody has (RFC 5737, RFC 3849): the way to them is the default route. */
const DOCUMENTATION = { udp4: "192.0.2.1", udp6: "2001:db8::1" } as const;

/** The source address of the default route. Nothing is sent: a UDP socket only learns its own address by connecting. */
export function routedAddress(kind: "udp4" | "udp6" = "udp4"): Promise<string | undefined> {
  const socket = createSocket(kind);
  return new Promise((resolve) => {
    const end = (address: string | undefined): void => {
      resolve(address);
      socket.close();
    };
    socket.once("error", () => end(undefined));
    // The port is that of "discard".
    socket.connect(9, DOCUMENTATION[kind], () => end(socket.address().address));
  });
}

/** What other nodes are told, where nobody has said it: logged once, since a host with several may mean another. */
export async function findAdvertiseAddress(
  listenHost: string,
  given: string | undefined,
  logger: Logger,
): Promise<string> {
  if (given !== undefined || !isAllAddresses(listenHost)) return advertiseAddress(listenHost, given);
  const routed =
    (await routedAddress("udp4")) ?? (isIPv6(listenHost) ? await routedAddress("udp6") : undefined);
  const interfaces = networkInterfaces();
  const address = advertiseAddress(listenHost, undefined, interfaces, routed);
  const alternatives = candidateAddresses(interfaces)
    .map((one) => one.address)
    .filter((other) => other !== address);
  logger.info(
    { address, alternatives },
    "other nodes are told this address; --advertise-address chooses another",
  );
  return address;
}
