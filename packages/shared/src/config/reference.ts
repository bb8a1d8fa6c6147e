import {
  envName,
  flagName,
  isFileOnly,
  isGroup,
  type GroupSchema,
  type SettingSchema,
  type TextSchema,
} from "./schema.ts";

/** What may be written for a value, in words. Formats without a word of their own are text. */
const KINDS: Readonly<Record<string, string>> = {
  size: "size",
  amount: "share or size",
  duration: "duration",
  "duration-or-off": "duration or `off`",
  "listen-address": "address",
  "host-port": "address",
  address: "IP address",
  "http-url": "URL",
  "proxy-url": "URL",
  path: "path",
  "optional-path": "path or `none`",
};

function textKind(schema: TextSchema): string {
  if (schema.enum !== undefined) return schema.enum.map((word) => `\`${word}\``).join(" or ");
  return (schema.format === undefined ? undefined : KINDS[schema.format]) ?? "text";
}

function kindOf(schema: SettingSchema): string {
  switch (schema.type) {
    case "boolean":
      return "`true` or `false`";
    case "array":
      return `list (${textKind(schema.items)})`;
    case "object":
      return `map (by ${schema["x-key-format"] ?? "name"})`;
    case "string":
    default:
      return textKind(schema);
  }
}

function defaultOf(schema: SettingSchema): string {
  if (schema["x-default"] !== undefined) return schema["x-default"];
  if (schema.type === "array" || schema.type === "object") return "none";
  return schema.default === undefined ? "none" : `\`${String(schema.default)}\``;
}

function flagOf(key: string, schema: SettingSchema): string {
  if (schema.type === "boolean") return `\`${flagName(key)}\``;
  const repeat = schema.type === "array" ? ", repeatable" : "";
  return `\`${flagName(key)} ${schema["x-placeholder"] ?? "VALUE"}\`${repeat}`;
}

function facts(prefix: string, path: readonly string[], key: string, schema: SettingSchema): string[] {
  const rows = [`- Type: ${kindOf(schema)}`, `- Default: ${defaultOf(schema)}`];
  if (path.length > 0 || isFileOnly(schema)) return [...rows, "- Config file only"];
  const variables = [envName(prefix, key), ...(schema["x-env"] ?? [])].map((name) => `\`${name}\``);
  return [...rows, `- Flag: ${flagOf(key, schema)}`, `- Variable: ${variables.join(", then ")}`];
}

function section(prefix: string, path: readonly string[], key: string, schema: SettingSchema): string[] {
  const name = [...path, key].join(".");
  const inner =
    isFileOnly(schema) && isGroup(schema.additionalProperties)
      ? sections(prefix, [...path, key, schema["x-placeholder"] ?? "NAME"], schema.additionalProperties)
      : [];
  return [
    `### \`${name}\``,
    "",
    schema.description ?? "",
    "",
    ...facts(prefix, path, key, schema),
    "",
    ...inner,
  ];
}

const sections = (prefix: string, path: readonly string[], group: GroupSchema): string[] =>
  Object.entries(group.properties).flatMap(([key, schema]) => section(prefix, path, key, schema));

/** One section of Markdown for each setting of a schema, in its order. */
export function renderReference(schema: GroupSchema, prefix: string): string {
  return sections(prefix, [], schema).join("\n").trimEnd();
}
