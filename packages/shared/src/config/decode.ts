import { settingError, type Origin, type SettingPath } from "./origin.ts";
import {
  camelCase,
  holdsSensitive,
  isGroup,
  type Formats,
  type GroupSchema,
  type ListSchema,
  type SettingSchema,
  type TableSchema,
  type TextSchema,
} from "./schema.ts";
import { didYouMean } from "./suggest.ts";
import { InvalidValue } from "./values.ts";

interface Context {
  readonly formats: Formats;
  readonly origin: Origin;
}

const isRecord = (raw: unknown): raw is Record<string, unknown> =>
  typeof raw === "object" && raw !== null && !Array.isArray(raw);

function parseText(context: Context, format: string, text: string): unknown {
  const parse = context.formats[format];
  if (parse === undefined) throw new TypeError(`the schema names an unknown format: ${format}`);
  return parse(text);
}

function decodeText(context: Context, schema: TextSchema, path: SettingPath, raw: unknown): unknown {
  const sensitive = schema["x-sensitive"] === true;
  const isNumber = Array.isArray(schema.type) && typeof raw === "number" && Number.isInteger(raw);
  if (typeof raw !== "string" && !isNumber) {
    const fix = `give a text${schema.type === "string" ? ", in quotes if need be" : " or a whole number"}`;
    throw settingError(context.origin, path, raw, fix, { sensitive });
  }
  const text = String(raw);
  if (schema.enum !== undefined && !schema.enum.includes(text)) {
    throw settingError(context.origin, path, raw, `give one of ${schema.enum.join(", ")}`);
  }
  if (schema.format === undefined) return text;
  try {
    return parseText(context, schema.format, text);
  } catch (error) {
    if (!(error instanceof InvalidValue)) throw error;
    throw settingError(context.origin, path, raw, error.fix, { sensitive, cause: error });
  }
}

/** The environment and some YAML writers have only text: these four words count. */
function decodeSwitch(context: Context, path: SettingPath, raw: unknown): boolean {
  if (typeof raw === "boolean") return raw;
  if (context.origin.kind === "env" && (raw === "true" || raw === "1")) return true;
  if (context.origin.kind === "env" && (raw === "false" || raw === "0")) return false;
  throw settingError(context.origin, path, raw, "give true or false");
}

function decodeList(
  context: Context,
  schema: ListSchema,
  path: SettingPath,
  raw: unknown,
): readonly unknown[] {
  if (!Array.isArray(raw)) throw settingError(context.origin, path, raw, "give a list");
  const items: readonly unknown[] = raw;
  return Object.freeze(items.map((item, index) => decodeText(context, schema.items, [...path, index], item)));
}

function decodeTable(
  context: Context,
  schema: TableSchema,
  path: SettingPath,
  raw: unknown,
): ReadonlyMap<string, unknown> {
  const entry = schema.additionalProperties;
  if (!isRecord(raw)) {
    const sensitive = holdsSensitive(entry);
    throw settingError(context.origin, path, raw, "give a map of names to values", { sensitive });
  }
  const table = new Map<string, unknown>();
  for (const [name, value] of Object.entries(raw)) {
    const inside = [...path, name];
    const key = schema["x-key-format"];
    const known =
      key === undefined ? name : decodeText(context, { type: "string", format: key }, inside, name);
    if (typeof known !== "string") throw new TypeError(`the format ${key} makes no names`);
    if (table.has(known)) throw settingError(context.origin, inside, name, "it is there twice; leave one");
    table.set(
      known,
      isGroup(entry) ? decodeGroup(context, entry, inside, value) : decodeText(context, entry, inside, value),
    );
  }
  return table;
}

function decodeGroup(
  context: Context,
  schema: GroupSchema,
  path: SettingPath,
  raw: unknown,
): Readonly<Record<string, unknown>> {
  const given = raw === null ? {} : raw;
  if (!isRecord(given)) {
    const sensitive = holdsSensitive(schema);
    throw settingError(context.origin, path, given, "give a map of settings", { sensitive });
  }
  refuseUnknownKeys(context.origin, schema, path, given);
  const defaults: Context = { ...context, origin: { kind: "default" } };
  return Object.freeze(
    Object.fromEntries(
      Object.entries(schema.properties).map(([key, setting]) => {
        const value = given[key];
        const inside = [...path, key];
        return [
          camelCase(key),
          value === undefined || value === null
            ? decodeDefault(defaults, setting, inside)
            : decodeSetting(context, setting, inside, value),
        ];
      }),
    ),
  );
}

/** @throws ConfigError for the first key that the schema does not have, with the one that was likely meant. */
export function refuseUnknownKeys(
  origin: Origin,
  schema: GroupSchema,
  path: SettingPath,
  given: Readonly<Record<string, unknown>>,
): void {
  const known = Object.keys(schema.properties);
  for (const [key, value] of Object.entries(given)) {
    if (known.includes(key)) continue;
    const hint = didYouMean(key, known) || `known are ${known.join(", ")}`;
    throw settingError(origin, [...path, key], value, `there is no such setting; ${hint}`, {
      sensitive: true,
    });
  }
}

export function decodeDefault(context: Context, schema: SettingSchema, path: SettingPath): unknown {
  switch (schema.type) {
    case "boolean":
      return schema.default;
    case "array":
      return Object.freeze([]);
    case "object":
      return new Map();
    case "string":
    default:
      return schema.default === undefined ? undefined : decodeText(context, schema, path, schema.default);
  }
}

/** Checks a raw value against its schema and parses it. @throws ConfigError naming the field as its origin does. */
export function decodeSetting(
  context: Context,
  schema: SettingSchema,
  path: SettingPath,
  raw: unknown,
): unknown {
  switch (schema.type) {
    case "boolean":
      return decodeSwitch(context, path, raw);
    case "array":
      return decodeList(context, schema, path, raw);
    case "object":
      return decodeTable(context, schema, path, raw);
    case "string":
    default:
      return decodeText(context, schema, path, raw);
  }
}
