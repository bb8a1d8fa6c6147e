import { readFile } from "node:fs/promises";
import {
  codeOf,
  settingError,
  type Origin,
  type Resolved,
  type SettingPath,
} from "@p2p-mirror/shared/config";
import type { MirrorSettings } from "./mirror-config.ts";

/** Where a setting was given, for its errors. */
export const originOf = (resolved: Resolved<MirrorSettings>, key: string): Origin =>
  resolved.origins.get(key) ?? { kind: "default" };

/** The text of a file that a setting names. @throws ConfigError; `what` says what the file is to be */
export async function readSettingFile(
  origin: Origin,
  path: SettingPath,
  file: string,
  what: string,
): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    const code = codeOf(error);
    const why = code === "" ? "" : ` (${code})`;
    throw settingError(origin, path, file, `give the path of a readable ${what}${why}`, { cause: error });
  }
}

/**
 * A docker config is read again whenever it changes, and then a broken one only costs the credentials. At a start it is
 * a mistake of whoever starts. @throws ConfigError
 */
export async function checkDockerConfig(resolved: Resolved<MirrorSettings>): Promise<void> {
  const file = resolved.values.dockerConfig;
  if (file === undefined) return;
  const origin = originOf(resolved, "docker_config");
  const text = await readSettingFile(origin, ["docker_config"], file, "docker config.json");
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    // Neither text nor reason is shown: there are passwords in it.
    throw settingError(
      origin,
      ["docker_config"],
      file,
      "give a docker config.json; this file holds no JSON object",
    );
  }
}
