import { BlockList, isIP, isIPv6 } from "node:net";

/** Thrown by a value's parser; becomes a ConfigError that also names the field and where it was set. `fix` ends its line. */
export class InvalidValue extends Error {
  override readonly name = "InvalidValue";
  readonly fix: string;

  constructor(fix: string) {
    super(fix);
    this.fix = fix;
  }
}

const UNITS: ReadonlyMap<string, number> = new Map(
  ["k", "m", "g", "t"].flatMap((letter, index): [string, number][] => {
    const binary = 1024 ** (index + 1);
    return [
      [`${letter}ib`, binary],
      [`${letter}i`, binary],
      [`${letter}b`, 1000 ** (index + 1)],
    ];
  }),
);
const SIZE = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/i;

/** Bytes: `1048576`, `512MiB`, `1.5GiB`, `20Gi` (powers of 1024), `10GB` (powers of 1000). Not below zero, whole bytes. */
export function parseSize(text: string): number {
  const match = SIZE.exec(text.trim());
  const unit = match?.[2]?.toLowerCase() ?? "";
  const factor = unit === "" || unit === "b" ? 1 : UNITS.get(unit);
  const bytes = match === null || factor === undefined ? Number.NaN : Math.round(Number(match[1]) * factor);
  if (!Number.isSafeInteger(bytes))
    throw new InvalidValue("give a size like 20GiB, 512MiB, 10GB or a number of bytes");
  return bytes;
}

/** Part of a whole that is known later: a share of it (0 to 1), or a fixed number of bytes. */
export type Amount = { readonly fraction: number } | { readonly bytes: number };

/** In bytes, of a file system of `total` bytes. */
export const amountOf = (amount: Amount, total: number): number =>
  "bytes" in amount ? amount.bytes : Math.ceil(amount.fraction * total);

/** `10%` (0 to less than 100: of all of it nothing is left) or a size. */
export function parseAmount(text: string): Amount {
  const match = /^(\d+(?:\.\d+)?)\s*%$/.exec(text.trim());
  const fix = "give a share like 10% (less than 100%) or a size like 5GiB";
  if (match !== null) {
    const percent = Number(match[1]);
    if (percent >= 100) throw new InvalidValue(fix);
    return { fraction: percent / 100 };
  }
  try {
    return { bytes: parseSize(text) };
  } catch {
    throw new InvalidValue(fix);
  }
}

const MILLISECONDS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** Milliseconds: `250ms`, `5m`, `1h30m`, `7d`. A bare number has no unit and is refused. */
export function parseDuration(text: string): number {
  const compact = text.trim().replaceAll(/\s+/g, "");
  const parts = [...compact.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  const total = parts.reduce(
    (sum, [, value, unit]) => sum + Number(value) * (MILLISECONDS[unit ?? ""] ?? 0),
    0,
  );
  const whole = parts.map(([part]) => part).join("") === compact;
  if (parts.length === 0 || !whole || !Number.isSafeInteger(Math.round(total))) {
    throw new InvalidValue("give a duration like 250ms, 30s, 5m, 1h30m or 7d");
  }
  return Math.round(total);
}

/** Where to listen, or whom to reach. `host` is an IP address without brackets, or a name. */
export interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** A listen address whose host may be left out (`:24221`): what it then is depends on other settings. */
export interface ListenAddress {
  readonly host: string | undefined;
  readonly port: number;
}

const HOST_NAME =
  /^(?=.{1,253}\.?$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*\.?$/i;
const HOST_PORT = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/;

function readHostPort(text: string, lowest: number): ListenAddress | undefined {
  const match = HOST_PORT.exec(text.trim());
  if (match === null) return undefined;
  const [, bracketed, plain = "", digits] = match;
  const port = Number(digits);
  if (port < lowest || port > 65_535) return undefined;
  if (bracketed !== undefined) return isIPv6(bracketed) ? { host: bracketed, port } : undefined;
  if (plain === "") return { host: undefined, port };
  // All digits and dots is meant as an address; `127.0.0.300` and `1.2.3` are no names.
  if (/^[\d.]+$/.test(plain) && isIP(plain) !== 4) return undefined;
  return HOST_NAME.test(plain) ? { host: plain, port } : undefined;
}

/** `HOST:PORT`, `[::1]:PORT` or `:PORT`. Port 0 lets the system choose. */
export function parseListenAddress(text: string): ListenAddress {
  const address = readHostPort(text, 0);
  if (address === undefined)
    throw new InvalidValue("give HOST:PORT, like 127.0.0.1:5000, [::1]:5000 or :5000");
  return address;
}

/** `HOST:PORT` of another machine; an IPv6 address in brackets. */
export function parseHostPort(text: string): HostPort {
  const address = readHostPort(text, 1);
  if (address?.host === undefined)
    throw new InvalidValue("give HOST:PORT, like mirror.example:24222 or [fd00::1]:24222");
  return { host: address.host, port: address.port };
}

export function formatHostPort({ host, port }: HostPort): string {
  return isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Of IPv4 addresses and ranges and those of IPv6, in whatever spelling an address has, IPv4-mapped ones too. */
function addressTest(
  ...ranges: readonly (readonly [address: string, prefix: number])[]
): (host: string) => boolean {
  const list = new BlockList();
  for (const [address, prefix] of ranges) list.addSubnet(address, prefix, isIPv6(address) ? "ipv6" : "ipv4");
  return (host) => isIP(host) !== 0 && list.check(host, isIPv6(host) ? "ipv6" : "ipv4");
}

const isLoopbackAddress = addressTest(["127.0.0.0", 8], ["::1", 128]);

/** 127.0.0.0/8, ::1 (also as an IPv4-mapped address) and the name `localhost` (RFC 6761, 6.3). */
export const isLoopback = (host: string): boolean =>
  host.toLowerCase() === "localhost" || isLoopbackAddress(host);

export const isAllAddresses = addressTest(["0.0.0.0", 32], ["::", 128]);

/** Nobody's in particular: this network, multicast and broadcast (RFC 1122, 3.2.1.3; RFC 4291, 2.5.2 and 2.7). */
export const isNoHost = addressTest(
  ["0.0.0.0", 8],
  ["224.0.0.0", 4],
  ["255.255.255.255", 32],
  ["::", 128],
  ["ff00::", 8],
);

/** `http` or `https`, any path prefix; without user, query and fragment. The result has no slash at its end. */
export function parseHttpUrl(text: string): string {
  const url = URL.parse(text.trim());
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw new InvalidValue("give an http or https URL, like https://registry.example/prefix");
  }
  if (url.username !== "" || url.password !== "") {
    throw new InvalidValue("leave user and password out of the URL");
  }
  if (url.search !== "" || url.hash !== "") throw new InvalidValue("leave query and fragment out of the URL");
  return `${url.origin}${url.pathname.replace(/\/+$/, "")}`;
}
