import { isIPv6 } from "node:net";
import {
  formatHostPort,
  InvalidValue,
  isAllAddresses,
  parseHttpUrl,
  settingError,
  type GroupSchema,
  type ListenAddress,
  type Origin,
} from "@p2p-mirror/shared/config";
import { ADMIN_VARIABLE, loadSome, REGISTRY_VARIABLE, type ConfigRequest } from "./load.ts";
import { MIRROR_SCHEMA } from "./schema.ts";

/** The two endpoints of a running mirror that commands use. */
export type EndpointName = "admin" | "registry";

const VARIABLES: Readonly<Record<EndpointName, string>> = {
  admin: ADMIN_VARIABLE,
  registry: REGISTRY_VARIABLE,
};

const LISTENERS = {
  type: "object",
  additionalProperties: false,
  properties: {
    admin_listen: MIRROR_SCHEMA.properties.admin_listen,
    registry_listen: MIRROR_SCHEMA.properties.registry_listen,
  },
} as const satisfies GroupSchema;

export interface EndpointRequest extends ConfigRequest {
  /** Of a flag. */
  readonly url: string | undefined;
  /** That flag, for the error. Default: `--admin` or `--registry`. */
  readonly flag?: string;
}

/**
 * The URL of an endpoint, without a slash at its end: the flag, the variable (P2P_MIRROR_ADMIN, P2P_MIRROR_REGISTRY), or
 * where a mirror with these settings listens. @throws ConfigError
 */
export async function endpointUrl(name: EndpointName, request: EndpointRequest): Promise<string> {
  if (request.url !== undefined)
    return readUrl({ kind: "flag", name: request.flag ?? `--${name}` }, name, request.url);
  const variable = request.env[VARIABLES[name]];
  if (variable !== undefined && variable !== "") {
    return readUrl({ kind: "env", name: VARIABLES[name] }, name, variable);
  }
  const { values, origins } = await loadSome(LISTENERS, request);
  const address = name === "admin" ? values.adminListen : values.registryListen;
  return localUrl(name, address, origins.get(`${name}_listen`) ?? { kind: "default" });
}

function readUrl(origin: Origin, name: EndpointName, text: string): string {
  try {
    return parseHttpUrl(text);
  } catch (error) {
    if (!(error instanceof InvalidValue)) throw error;
    throw settingError(
      origin,
      [name],
      text,
      "give the URL of a mirror's endpoint, like http://127.0.0.1:24223",
      {
        cause: error,
      },
    );
  }
}

function localUrl(name: EndpointName, { host, port }: ListenAddress, origin: Origin): string {
  if (port === 0) {
    const fix = `the port is chosen at each start; give --${name} URL`;
    throw settingError(origin, [`${name}_listen`], `${host ?? ""}:0`, fix);
  }
  const reachable =
    host !== undefined && !isAllAddresses(host) ? host : isIPv6(host ?? "") ? "::1" : "127.0.0.1";
  return `http://${formatHostPort({ host: reachable, port })}`;
}
