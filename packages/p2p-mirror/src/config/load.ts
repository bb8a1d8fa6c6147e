import {
  readConfigFile,
  refuseUnknownKeys,
  resolveSettings,
  type Decoded,
  type FlagValues,
  type GroupSchema,
  type Resolved,
  type Sources,
} from "@p2p-mirror/shared/config";
import { MIRROR_FORMATS } from "./formats.ts";
import type { MirrorConfig } from "./mirror-config.ts";
import { applyRules, type RuleInputs } from "./rules.ts";
import { ENV_PREFIX, MIRROR_SCHEMA } from "./schema.ts";
import { warningsOf } from "./warnings.ts";

/** Read beside the schema: where the config file is, and where the commands find a running mirror. */
export const CONFIG_VARIABLE = `${ENV_PREFIX}CONFIG`;
export const ADMIN_VARIABLE = `${ENV_PREFIX}ADMIN`;
export const REGISTRY_VARIABLE = `${ENV_PREFIX}REGISTRY`;

export const RESERVED_VARIABLES: readonly string[] = [CONFIG_VARIABLE, ADMIN_VARIABLE, REGISTRY_VARIABLE];

export interface ConfigRequest {
  readonly flags: FlagValues;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** `--config`; else the variable P2P_MIRROR_CONFIG, else no file. */
  readonly configPath: string | undefined;
}

export interface LoadedConfig {
  readonly config: MirrorConfig;
  readonly warnings: readonly string[];
}

/** Reads the config file that was named, if any. @throws ConfigError */
export async function readSources(request: ConfigRequest): Promise<Sources> {
  const { flags, env } = request;
  const fromEnv = env[CONFIG_VARIABLE] === "" ? undefined : env[CONFIG_VARIABLE];
  const path = request.configPath ?? fromEnv;
  if (path === undefined) return { flags, env, file: undefined };
  const field = request.configPath === undefined ? CONFIG_VARIABLE : "--config";
  return { flags, env, file: await readConfigFile(path, field) };
}

/**
 * Settles some settings and passes over the values of the rest: a command must work beside a mirror whose other settings
 * this user cannot read. A key that is no setting at all is refused as `serve` does: it may be one of these, misspelt.
 * @param schema a part of MIRROR_SCHEMA @throws ConfigError
 */
export async function loadSome<S extends GroupSchema>(
  schema: S,
  request: ConfigRequest,
): Promise<Resolved<Decoded<S, typeof MIRROR_FORMATS>>> {
  const { file, ...sources } = await readSources(request);
  if (file !== undefined) refuseUnknownKeys({ kind: "file", file }, MIRROR_SCHEMA, [], file.values);
  const values = Object.entries(file?.values ?? {}).filter(([key]) => key in schema.properties);
  const some = file && { ...file, values: Object.fromEntries(values) };
  return resolveSettings(schema, MIRROR_FORMATS, ENV_PREFIX, { ...sources, file: some });
}

/** Settles all settings of `serve`. Nothing is opened, bound or written before all of them are right. @throws ConfigError */
export async function loadMirrorConfig(request: ConfigRequest, inputs: RuleInputs): Promise<LoadedConfig> {
  const sources = await readSources(request);
  const resolved = resolveSettings(MIRROR_SCHEMA, MIRROR_FORMATS, ENV_PREFIX, sources, RESERVED_VARIABLES);
  const config = await applyRules(resolved, inputs);
  return { config, warnings: warningsOf(config, resolved) };
}
