import { decodeDefault, decodeSetting, refuseUnknownKeys } from "./decode.ts";
import type { ConfigFile, Origin } from "./origin.ts";
import {
  camelCase,
  envName,
  flagName,
  isFileOnly,
  type Decoded,
  type Formats,
  type GroupSchema,
} from "./schema.ts";
import type { SettingSchema } from "./schema.ts";
import { suggest } from "./suggest.ts";

/** The values of flags that were given, by setting (snake_case). Repeatable ones are lists. */
export type FlagValues = Readonly<Record<string, string | boolean | readonly string[]>>;

/** Everywhere a setting may be given. A flag counts before the environment, that before the file, that before the default. */
export interface Sources {
  readonly flags: FlagValues;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly file: ConfigFile | undefined;
}

export interface Resolved<V> {
  /** Parsed, camelCase, frozen. */
  readonly values: V;
  /** By setting (snake_case): where its value is from. */
  readonly origins: ReadonlyMap<string, Origin>;
  /** Variables with the program's prefix that look like misspelt settings, with the one that was likely meant. */
  readonly suspicious: readonly { readonly variable: string; readonly meant: string }[];
}

interface Given {
  readonly raw: unknown;
  readonly origin: Origin;
}

function fromFlag(key: string, sources: Sources): Given | undefined {
  const raw = sources.flags[key];
  return raw === undefined ? undefined : { raw, origin: { kind: "flag", name: flagName(key) } };
}

/** An empty variable is one that is not set: the usual way to switch one off in a manifest. Lists are split at commas. */
function fromEnv(prefix: string, key: string, schema: SettingSchema, sources: Sources): Given | undefined {
  if (isFileOnly(schema)) return undefined;
  for (const name of [envName(prefix, key), ...(schema["x-env"] ?? [])]) {
    const text = sources.env[name]?.trim();
    if (text === undefined || text === "") continue;
    const raw =
      schema.type === "array"
        ? text
            .split(",")
            .map((item) => item.trim())
            .filter((item) => item !== "")
        : text;
    return { raw, origin: { kind: "env", name } };
  }
  return undefined;
}

function fromFile(key: string, sources: Sources): Given | undefined {
  const raw = sources.file?.values[key];
  return raw === undefined || raw === null || sources.file === undefined
    ? undefined
    : { raw, origin: { kind: "file", file: sources.file } };
}

/**
 * Variables that nobody reads. Only those near a known name are told: Kubernetes puts variables of its own beside ours,
 * named after Services (`P2P_MIRROR_PORT_24221_TCP_ADDR` for one called p2p-mirror), so an unknown one is no error.
 */
function findSuspicious(
  prefix: string,
  names: readonly string[],
  env: Sources["env"],
): Resolved<unknown>["suspicious"] {
  return Object.keys(env)
    .filter((name) => name.startsWith(prefix) && !names.includes(name))
    .filter((name) => !/_SERVICE_(?:HOST|PORT)|_PORT(?:_|$)/.test(name))
    .flatMap((variable) => {
      const meant = suggest(
        variable.slice(prefix.length),
        names.map((name) => name.slice(prefix.length)),
      );
      return meant === undefined ? [] : [{ variable, meant: `${prefix}${meant}` }];
    });
}

/**
 * Settles every setting of a program. `prefix` begins its environment variables, `reserved` are variables with that
 * prefix that are read elsewhere.
 * @throws ConfigError for the first setting that is wrong, unknown or misspelt.
 */
export function resolveSettings<const S extends GroupSchema, F extends Formats>(
  schema: S,
  formats: F,
  prefix: string,
  sources: Sources,
  reserved: readonly string[] = [],
): Resolved<Decoded<S, F>> {
  if (sources.file !== undefined) {
    refuseUnknownKeys({ kind: "file", file: sources.file }, schema, [], sources.file.values);
  }
  const origins = new Map<string, Origin>();
  const values: Record<string, unknown> = {};
  for (const [key, setting] of Object.entries(schema.properties)) {
    const given = fromFlag(key, sources) ?? fromEnv(prefix, key, setting, sources) ?? fromFile(key, sources);
    const origin: Origin = given?.origin ?? { kind: "default" };
    origins.set(key, origin);
    values[camelCase(key)] =
      given === undefined
        ? decodeDefault({ formats, origin }, setting, [key])
        : decodeSetting({ formats, origin }, setting, [key], given.raw);
  }
  const names = [...Object.keys(schema.properties).map((key) => envName(prefix, key)), ...reserved];
  return {
    // The one place where the walk over the schema and the type made of the schema meet; the tests hold them together.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    values: Object.freeze(values) as Decoded<S, F>,
    origins,
    suspicious: findSuspicious(prefix, names, sources.env),
  };
}
