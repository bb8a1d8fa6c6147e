import { type Command, Option } from "commander";
import {
  flagName,
  isFileOnly,
  type FlagValues,
  type GroupSchema,
  type SettingSchema,
} from "@p2p-mirror/shared/config";

/** The first sentence of a setting's help, and its default. */
function shortHelp(schema: SettingSchema): string {
  const help = schema.description ?? "";
  const sentence = /^.*?\.(?= |$)/s.exec(help)?.[0] ?? help;
  const standard =
    schema["x-default"] ?? ("default" in schema && schema.default !== false ? schema.default : undefined);
  const notes = [
    ...(schema.type === "array" ? ["repeatable"] : []),
    ...("enum" in schema && schema.enum !== undefined ? [schema.enum.join(" | ")] : []),
    ...(standard === undefined ? [] : [`default: ${standard}`]),
  ];
  return notes.length === 0 ? sentence : `${sentence} (${notes.join("; ")})`;
}

function optionOf(key: string, schema: SettingSchema): Option {
  const placeholder = schema["x-placeholder"] ?? "VALUE";
  const option = new Option(
    schema.type === "boolean" ? flagName(key) : `${flagName(key)} <${placeholder}>`,
    shortHelp(schema),
  );
  if (schema.type !== "array") return option;
  return option.argParser((text: string, before: readonly string[] | undefined) => [...(before ?? []), text]);
}

/** Gives a command a flag for each setting that can be one. Defaults stay with the schema: an absent flag is no value. */
export function addSettings(command: Command, schema: GroupSchema): void {
  for (const [key, setting] of Object.entries(schema.properties)) {
    if (!isFileOnly(setting)) command.addOption(optionOf(key, setting));
  }
}

const isFlagValue = (value: unknown): value is string | boolean | readonly string[] =>
  typeof value === "string" || typeof value === "boolean" || Array.isArray(value);

/** The settings that were given as flags, by the schema's names. */
export function givenSettings(command: Command, schema: GroupSchema): FlagValues {
  const given: Record<string, string | boolean | readonly string[]> = {};
  const values: Record<string, unknown> = command.opts();
  for (const [key, setting] of Object.entries(schema.properties)) {
    if (isFileOnly(setting)) continue;
    const value = values[optionOf(key, setting).attributeName()];
    if (isFlagValue(value)) given[key] = value;
  }
  return given;
}
