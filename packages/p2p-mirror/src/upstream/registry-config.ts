import { DOCKER_HUB, InvalidInputError, type Repository } from "@p2p-mirror/shared";

/**
 * How a registry is reached, by the keys containerd's hosts.toml has. All of it is optional: a registry nobody
 * configured is `https://<registry>`.
 */
export interface RegistryConfig {
  /** http or https, with an optional path: `https://host/prefix` means `/prefix/v2/…`. */
  readonly url?: string | undefined;
  /** The path of `url` is used as it is instead of having `/v2` appended. */
  readonly overridePath?: boolean | undefined;
  /** PEM text of CAs accepted besides the system's. */
  readonly ca?: readonly string[] | undefined;
  /** PEM text. */
  readonly clientCert?: { readonly cert: string; readonly key: string } | undefined;
  /** Certificates of this registry are not checked, nor those of its redirects and its token server. */
  readonly skipVerify?: boolean | undefined;
  /** Sent with each request to the registry itself, never to where it redirects or to its token server. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>> | undefined;
}

/** One host of a registry, as somebody listed it in containerd's hosts.toml. */
export interface RegistryHost extends RegistryConfig {
  /** May say what a tag means. */
  readonly resolves: boolean;
  /** May deliver what has a digest. */
  readonly pulls: boolean;
}

/** The hosts listed for registries, in the order in which they are asked. */
export interface RegistryHosts {
  /** Undefined: none are listed. Empty: nobody is to be asked. The very same array while nothing has changed. */
  of(registry: string): readonly RegistryHost[] | undefined;
}

/** Where and how to ask a registry, or one of its hosts, worked out from its name and configuration. */
export interface Endpoint {
  /** As image names have it. */
  readonly registry: string;
  /** Differs between the hosts of a registry. */
  readonly id: string;
  readonly origin: string;
  /** Without a slash at the end: `/v2`. */
  readonly path: string;
  readonly secure: boolean;
  /** The query parameter that tells a proxy which registry is meant, as containerd sends it; undefined: none. */
  readonly namespace: string | undefined;
  /**
   * Whose login it may get: the registry's own only where it is reached at its own host; another host only what the docker
   * config has for that host, or whoever sets a mirror in a registry's place would hand its password on.
   */
  readonly loginAs: string;
  /** Asked without anything that could be a credential. */
  readonly anonymous: boolean;
  /** Another host is asked when this one fails: it is not tried again. */
  readonly spare: boolean;
  /** Not the registry's own host, and listed by somebody else: it may be a mirror itself. */
  readonly listed: boolean;
  readonly config: RegistryConfig;
}

const HUB_HOST = "registry-1.docker.io";

const defaultHost = (registry: string): string => (registry === DOCKER_HUB ? HUB_HOST : registry);

/** Whether a URL is the registry's own host, whichever way the port is written. */
function isOwnHost(registry: string, url: URL): boolean {
  const own = `${url.protocol}//${defaultHost(registry)}`;
  return URL.canParse(own) && new URL(own).host === url.host;
}

/**
 * Path rules as containerd has them for `server` and `[host]` (core/remotes/docker/config).
 * @throws InvalidInputError (`NAME_INVALID`) for a name that no URL can have, such as `host:99999`
 */
export function endpointOf(registry: string, config: RegistryConfig = {}): Endpoint {
  const text = config.url ?? `https://${defaultHost(registry)}`;
  if (!URL.canParse(text)) throw new InvalidInputError("NAME_INVALID", "registry", registry.slice(0, 255));
  const url = new URL(text);
  const trimmed = url.pathname.replace(/\/+$/, "");
  const path = config.overridePath === true || trimmed.endsWith("/v2") ? trimmed : `${trimmed}/v2`;
  return {
    registry,
    id: `${registry} ${url.origin}${path}`,
    origin: url.origin,
    path,
    secure: url.protocol === "https:",
    // A host that is not the registry's own must be told whose content is meant; one that is no proxy ignores it.
    namespace: isOwnHost(registry, url) ? undefined : registry,
    loginAs: isOwnHost(registry, url) ? registry : url.host,
    anonymous: false,
    spare: false,
    listed: false,
    config,
  };
}

/** The same registry for somebody unknown: no headers of the administrator's (any may be a key), no client certificate. */
export function anonymousOf(endpoint: Endpoint): Endpoint {
  return {
    ...endpoint,
    anonymous: true,
    config: { ...endpoint.config, headers: undefined, clientCert: undefined },
  };
}

const isLoopbackName = (name: string): boolean =>
  name === "localhost" || name === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(name);

/** Whether a login may be sent there: never in clear text over a network. */
export const isSafeForLogins = ({ protocol, hostname }: URL): boolean =>
  protocol === "https:" || isLoopbackName(hostname);

/** `rest` begins with `manifests/`, `blobs/`, …; repository names and references need no escaping, queries do. */
export function objectUrl(
  endpoint: Endpoint,
  { repository }: Repository,
  rest: string,
  query: Readonly<Record<string, string>> = {},
): URL {
  const url = new URL(`${endpoint.origin}${endpoint.path}/${repository}/${rest}`);
  if (endpoint.namespace !== undefined) url.searchParams.set("ns", endpoint.namespace);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return url;
}
