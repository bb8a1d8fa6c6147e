import { isIP } from "node:net";
import {
  FORMATS,
  InvalidValue,
  parseHostPort,
  parseHttpUrl,
  parseRegistryName,
  parseSize,
  type HostPort,
} from "@p2p-mirror/shared/config";

/** One `--upstream`: the URL to use for a registry instead of its own. */
export interface UpstreamOverride {
  readonly registry: string;
  readonly url: string;
}

function parseUpstream(text: string): UpstreamOverride {
  const equals = text.indexOf("=");
  if (equals === -1) throw new InvalidValue("give REGISTRY=URL, like docker.io=http://cache.example:5000");
  return { registry: parseRegistryName(text.slice(0, equals)), url: parseHttpUrl(text.slice(equals + 1)) };
}

/** The rule of containerd's identifiers (pkg/identifiers): words of letters and digits, at most 76 characters. */
function parseNamespace(text: string): string {
  if (text.length > 76 || !/^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/.test(text)) {
    throw new InvalidValue("give a containerd namespace, like k8s.io");
  }
  return text;
}

/** As other programs take it: a URL that may hold user and password; without a scheme it is http. */
function parseProxyUrl(text: string): string {
  const url = URL.parse(/^[a-z][a-z0-9+.-]*:\/\//i.test(text) ? text : `http://${text}`);
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:") || url.hostname === "") {
    throw new InvalidValue("give the URL of an HTTP proxy, like http://proxy.example:3128");
  }
  return url.href;
}

/** RFC 9110, 5.1; in lower case. The ones that a request makes by itself cannot be set. */
function parseHeaderName(text: string): string {
  const name = text.toLowerCase();
  const own = ["host", "content-length", "transfer-encoding", "connection", "range"];
  if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name) || own.includes(name)) {
    throw new InvalidValue(`give the name of an HTTP header other than ${own.join(", ")}`);
  }
  return name;
}

/** RFC 9110, 5.5: one line of visible characters, spaces and tabs. */
function parseHeaderValue(text: string): string {
  if (!/^[\t\x20-\x7e\x80-\xff]*$/.test(text))
    throw new InvalidValue("give one line of text without control characters");
  return text;
}

/** A value of a node label (Kubernetes: at most 63 characters), in which it may also be empty. */
function parseZone(text: string): string {
  if (text.length > 63 || !/^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$/.test(text)) {
    throw new InvalidValue("give the name of a zone, at most 63 letters, digits, dots and dashes");
  }
  return text;
}

/** As many as there may be at a time: 1 to 64. */
function parseCount(text: string): number {
  const count = Number(text);
  if (!/^\d{1,2}$/.test(text.trim()) || count < 1 || count > 64)
    throw new InvalidValue("give a number from 1 to 64");
  return count;
}

/** With less, turns are so far apart that peers and registries give connections up. */
const LOWEST_RATE = 256 * 1024;

/** Bytes per second, or undefined for `off`. */
function parseRate(text: string): number | undefined {
  if (text.trim() === "off") return undefined;
  const fix = 'give bytes per second like 50MiB, 256KiB or more, or "off"';
  let rate: number;
  try {
    rate = parseSize(text);
  } catch {
    throw new InvalidValue(fix);
  }
  if (rate < LOWEST_RATE) throw new InvalidValue(fix);
  return rate;
}

/** RFC 1123: what names of namespaces, Services and nodes are made of. */
const LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
const isLabel = (text: string): boolean => new RegExp(`^${LABEL}$`).test(text);

/** A Service of Kubernetes. */
function parseService(text: string): { readonly namespace: string; readonly name: string } {
  const [namespace = "", name = "", ...rest] = text.trim().split("/");
  if (rest.length > 0 || !isLabel(namespace) || !isLabel(name)) {
    throw new InvalidValue("give NAMESPACE/NAME of a Service, like p2p-mirror/p2p-mirror");
  }
  return { namespace, name };
}

/** The name of a Node: RFC 1123, a name with dots. */
function parseNode(text: string): string {
  if (text.length > 253 || !new RegExp(`^${LABEL}(\\.${LABEL})*$`).test(text)) {
    throw new InvalidValue("give the name of a Node as kubectl get nodes shows it");
  }
  return text;
}

/** As Kubernetes puts it into a Pod's environment: an IPv6 address has no brackets there. */
function parseKubernetesApi(text: string): HostPort {
  const bare = /^([0-9a-f:]*:[0-9a-f:]*):(\d+)$/i.exec(text.trim());
  if (bare !== null && isIP(bare[1] ?? "") === 6) return parseHostPort(`[${bare[1]}]:${bare[2]}`);
  return parseHostPort(text);
}

/** Parsers by the format names of the schema. */
export const MIRROR_FORMATS = {
  ...FORMATS,
  upstream: parseUpstream,
  "containerd-namespace": parseNamespace,
  "proxy-url": parseProxyUrl,
  "header-name": parseHeaderName,
  "header-value": parseHeaderValue,
  zone: parseZone,
  count: parseCount,
  rate: parseRate,
  service: parseService,
  "kubernetes-api": parseKubernetesApi,
  node: parseNode,
} as const;
