import { ConfigError } from "../errors.ts";

/** A place inside a setting: names of tables and groups, positions of lists. */
export type SettingPath = readonly (string | number)[];

/** Where a setting's value was given. */
export type Origin =
  | { readonly kind: "flag"; readonly name: string }
  | { readonly kind: "env"; readonly name: string }
  | { readonly kind: "file"; readonly file: ConfigFile }
  | { readonly kind: "default" };

/** A config file that was read. `lineOf` gives the line (from 1) of a setting, or of the nearest thing around it. */
export interface ConfigFile {
  readonly path: string;
  readonly values: Readonly<Record<string, unknown>>;
  lineOf(path: SettingPath): number;
}

/** The field of an error as people look for it: `--flag`, `VARIABLE`, or `file:line: key`. */
export function fieldOf(origin: Origin, path: SettingPath): string {
  const key = path.map(String).join(".");
  if (origin.kind === "file") return `${origin.file.path}:${origin.file.lineOf(path)}: ${key}`;
  return origin.kind === "default" ? key : origin.name;
}

/** A value as it may stand in an error: one line of bounded length, nothing of what may hold a credential. */
export function printable(raw: unknown, sensitive: boolean): string {
  if (sensitive) return "(hidden)";
  const text = typeof raw === "string" ? raw : (JSON.stringify(raw) ?? "");
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

export function settingError(
  origin: Origin,
  path: SettingPath,
  raw: unknown,
  fix: string,
  options: { sensitive?: boolean; cause?: unknown } = {},
): ConfigError {
  return new ConfigError(fieldOf(origin, path), printable(raw, options.sensitive === true), fix, {
    cause: options.cause,
  });
}
