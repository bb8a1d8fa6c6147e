import type { FORMATS } from "./formats.ts";

/**
 * The part of JSON Schema (2020-12) that describes settings. A program writes its settings once, as a literal of
 * `GroupSchema`: names, types, defaults and help. The file, the environment, the flags, the reference page, the schema
 * for editors and the TypeScript type of the result all come from it. Keys are snake_case.
 */
export type SettingSchema = TextSchema | SwitchSchema | ListSchema | TableSchema;

interface Annotations {
  /** Help, as sentences. The first one is what `--help` shows. */
  readonly description?: string;
  /** What stands for the value in help: `HOST:PORT`. */
  readonly "x-placeholder"?: string;
  /** Describes a default that depends on something else. */
  readonly "x-default"?: string;
  /** Environment variables that are asked when the program's own is not set, in order. */
  readonly "x-env"?: readonly string[];
  /** The value may hold a credential and is never printed. */
  readonly "x-sensitive"?: true;
}

export interface TextSchema extends Annotations {
  /** Sizes and the like may be plain numbers in a file. */
  readonly type: "string" | readonly ["string", "integer"];
  /** Name of the parser that makes a value of the text. */
  readonly format?: string;
  readonly enum?: readonly string[];
  readonly default?: string;
}

export interface SwitchSchema extends Annotations {
  readonly type: "boolean";
  /** Of a flag false: there is no way to take a flag back. */
  readonly default: boolean;
}

export interface ListSchema extends Annotations {
  readonly type: "array";
  readonly items: TextSchema;
}

/** Names of the user's choice, each with a text or a group. Only in files. */
export interface TableSchema extends Annotations {
  readonly type: "object";
  readonly additionalProperties: TextSchema | GroupSchema;
  /** Format of the names. */
  readonly "x-key-format"?: string;
}

export interface GroupSchema extends Annotations {
  readonly type: "object";
  readonly properties: Readonly<Record<string, SettingSchema>>;
  readonly additionalProperties: false;
}

/** Parsers by `format` name. They throw InvalidValue. */
export type Formats = Readonly<Record<string, (text: string) => unknown>>;

type CamelCase<S extends string> = S extends `${infer Head}_${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : S;

type Optional<S> = S extends { readonly default: unknown } | { readonly type: "array" | "object" }
  ? never
  : undefined;

/** The TypeScript type of what a schema's settings become: parsed values, camelCase names, deeply read-only. */
export type Decoded<S, F extends Formats = typeof FORMATS> = S extends { readonly enum: readonly (infer E)[] }
  ? E
  : S extends { readonly format: infer Name extends keyof F }
    ? ReturnType<F[Name]>
    : S extends { readonly type: "boolean" }
      ? boolean
      : S extends { readonly items: infer Item }
        ? readonly Decoded<Item, F>[]
        : S extends { readonly properties: infer P }
          ? { readonly [K in keyof P & string as CamelCase<K>]: Decoded<P[K], F> | Optional<P[K]> }
          : S extends { readonly additionalProperties: infer Entry }
            ? ReadonlyMap<string, Decoded<Entry, F>>
            : string;

export const isGroup = (schema: TextSchema | GroupSchema): schema is GroupSchema => "properties" in schema;

/** Whether there is a setting in it whose value is never printed. */
export const holdsSensitive = (schema: SettingSchema | GroupSchema): boolean => {
  if (schema["x-sensitive"] === true) return true;
  if ("properties" in schema) return Object.values(schema.properties).some(holdsSensitive);
  return schema.type === "object" && holdsSensitive(schema.additionalProperties);
};

/** Tables have no flag and no variable: they are what the file is for. */
export const isFileOnly = (schema: SettingSchema): schema is TableSchema => schema.type === "object";

export const camelCase = (key: string): string =>
  key.replaceAll(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

export const flagName = (key: string): string => `--${key.replaceAll("_", "-")}`;

export const envName = (prefix: string, key: string): string => `${prefix}${key.toUpperCase()}`;
