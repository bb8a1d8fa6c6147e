import { settingError, type Origin, type Resolved, type SettingPath } from "@p2p-mirror/shared/config";
import { originOf, readSettingFile } from "./files.ts";
import type { MirrorSettings, RegistryConfig } from "./mirror-config.ts";

type RegistrySettings = MirrorSettings["registries"] extends ReadonlyMap<string, infer Entry> ? Entry : never;

const UNCHANGED: RegistryConfig = Object.freeze({
  url: undefined,
  ca: Object.freeze([]),
  clientCert: undefined,
  skipVerify: false,
  headers: Object.freeze({}),
  overridePath: false,
  mirror: true,
  size: undefined,
  ttlMs: undefined,
  off: false,
});

/** Bundles of all public CAs have about 250 KiB. */
const MAX_PEM_BYTES = 4 * 1024 * 1024;

/**
 * The settings of all registries: the table of the file, with `upstream` merged in and the PEM files read.
 * @throws ConfigError for a file that is not there or is no PEM, half a client certificate, an upstream given twice.
 */
export async function readRegistries(
  resolved: Resolved<MirrorSettings>,
): Promise<ReadonlyMap<string, RegistryConfig>> {
  const origin = originOf(resolved, "registries");
  const registries = new Map<string, RegistryConfig>();
  for (const [name, settings] of resolved.values.registries) {
    registries.set(name, await readRegistry(settings, origin, ["registries", name]));
  }
  const seen = new Set<string>();
  for (const { registry, url } of resolved.values.upstream) {
    if (seen.has(registry)) {
      throw settingError(
        originOf(resolved, "upstream"),
        ["upstream"],
        registry,
        "it is given twice; leave one",
      );
    }
    seen.add(registry);
    registries.set(registry, Object.freeze({ ...(registries.get(registry) ?? UNCHANGED), url }));
  }
  return registries;
}

async function readRegistry(
  settings: RegistrySettings,
  origin: Origin,
  path: SettingPath,
): Promise<RegistryConfig> {
  const { ca, clientCert, clientKey, headers, ttl, ...rest } = settings;
  if ((clientCert === undefined) !== (clientKey === undefined)) {
    const [given, missing] =
      clientCert === undefined ? ["client_key", "client_cert"] : ["client_cert", "client_key"];
    throw settingError(origin, [...path, given], clientCert ?? clientKey, `give ${missing} too`);
  }
  const pem = (key: SettingPath, file: string, label: string): Promise<string> =>
    readPem(origin, [...path, ...key], file, label);
  return Object.freeze({
    ...rest,
    ca: Object.freeze(await Promise.all(ca.map((file, index) => pem(["ca", index], file, "CERTIFICATE")))),
    clientCert:
      clientCert === undefined || clientKey === undefined
        ? undefined
        : Object.freeze({
            cert: await pem(["client_cert"], clientCert, "CERTIFICATE"),
            key: await pem(["client_key"], clientKey, "PRIVATE KEY"),
          }),
    headers: Object.freeze(Object.fromEntries(headers)),
    ttlMs: ttl === "off" ? undefined : ttl,
  });
}

async function readPem(origin: Origin, path: SettingPath, file: string, label: string): Promise<string> {
  const text = await readSettingFile(origin, path, file, "PEM file");
  if (text.length > MAX_PEM_BYTES || !new RegExp(`^-----BEGIN [A-Z ]*${label}-----`, "m").test(text)) {
    throw settingError(origin, path, file, `give a PEM file with a ${label.toLowerCase()} in it`);
  }
  return text;
}
