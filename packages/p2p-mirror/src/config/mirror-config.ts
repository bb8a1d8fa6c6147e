import type { Amount, Decoded, HostPort } from "@p2p-mirror/shared/config";
import type { XStatic } from "typebox/schema";
import type { MIRROR_FORMATS } from "./formats.ts";
import type { MIRROR_SCHEMA } from "./schema.ts";

/**
 * A config file as JSON or YAML has it, by the same schema. Only the types of typebox are used here: at run time it would
 * cost 17 MB and 80 ms in every process, and its errors know neither the line nor the fix. The tests hold our own reading
 * of the schema and typebox's together.
 */
export type MirrorFile = XStatic<typeof MIRROR_SCHEMA>;

/** The settings as the schema has them, before the rules between them were applied. */
export type MirrorSettings = Decoded<typeof MIRROR_SCHEMA, typeof MIRROR_FORMATS>;

/** How one registry is reached, and what is kept of it. */
export interface RegistryConfig {
  /** Without a slash at its end; undefined: https and the registry's own name. */
  readonly url: string | undefined;
  /** PEM text of each file. */
  readonly ca: readonly string[];
  /** PEM text. */
  readonly clientCert: { readonly cert: string; readonly key: string } | undefined;
  readonly skipVerify: boolean;
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, string>>;
  readonly overridePath: boolean;
  /** False: requests for it are declined. */
  readonly mirror: boolean;
  /** Bytes of the cache; undefined: no limit of its own. */
  readonly size: number | undefined;
  /** Since the last use; undefined: for ever. */
  readonly ttlMs: number | undefined;
  /** Nothing of it is kept in the cache. */
  readonly off: boolean;
}

/** What the daemon is built from: complete, checked, frozen. */
export interface MirrorConfig {
  readonly registryListen: HostPort;
  readonly peerListen: HostPort;
  readonly p2pListen: HostPort;
  readonly adminListen: HostPort;
  /** `/metrics` alone; undefined: nowhere else than at `adminListen`. */
  readonly metricsListen: HostPort | undefined;
  /** Undefined: to be found. */
  readonly advertiseAddress: string | undefined;
  readonly dataDir: string;
  /** Bytes. */
  readonly cacheSize: number;
  readonly cacheMinFree: Amount;
  /** Undefined: no containerd. */
  readonly containerdSocket: string | undefined;
  readonly containerdNamespace: string;
  readonly containerdConfig: string;
  readonly bootstrap: readonly HostPort[];
  /** Its EndpointSlices list other nodes; only with `kubernetesApi`. */
  readonly bootstrapService: { readonly namespace: string; readonly name: string } | undefined;
  readonly kubernetesApi: HostPort | undefined;
  readonly kubernetesAccount: string;
  /** The Node that is told what the doctor finds; only with `kubernetesApi`. */
  readonly nodeCondition: string | undefined;
  /** "": not known. */
  readonly zone: string;
  readonly maxUpstreamFetchers: number;
  /** Bytes per second from registries, from peers and to peers; undefined: no limit. */
  readonly limitUpstream: number | undefined;
  readonly limitIn: number | undefined;
  readonly limitOut: number | undefined;
  /** The first is used, all are accepted; none: the mesh is open, and on loopback unless `insecureOpenMesh`. */
  readonly clusterSecretFiles: readonly string[];
  readonly insecureOpenMesh: boolean;
  readonly access: "public" | "open";
  /** By lower-case registry name; `--upstream` is merged in. */
  readonly registries: ReadonlyMap<string, RegistryConfig>;
  readonly dockerConfig: string | undefined;
  readonly httpProxy: string | undefined;
  readonly httpsProxy: string | undefined;
  /** The list as NO_PROXY has it, with commas. */
  readonly proxyBypass: string | undefined;
  readonly hostsDir: string | undefined;
  readonly hostsRemoveOnExit: boolean;
  readonly logLevel: "error" | "warn" | "info" | "debug" | "trace" | "silent";
}
