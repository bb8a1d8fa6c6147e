import type { GroupSchema } from "@p2p-mirror/shared/config";
import { MIRROR_SCHEMA } from "./schema.ts";

const { properties } = MIRROR_SCHEMA;

/** What the commands that look after hosts.toml files need to know of a mirror's settings. */
export const HOSTS_DIR_SETTING = {
  type: "object",
  additionalProperties: false,
  properties: { hosts_dir: properties.hosts_dir },
} as const satisfies GroupSchema;

/** What is to be known before the mirror is put into them. */
export const REGISTRIES_SETTING = {
  type: "object",
  additionalProperties: false,
  properties: { registries: properties.registries },
} as const satisfies GroupSchema;

/** Registries with `mirror: false`: containerd is to ask them itself. */
export const withoutMirror = (
  registries: ReadonlyMap<string, { readonly mirror: boolean }>,
): ReadonlySet<string> =>
  new Set(registries.entries().flatMap(([name, { mirror }]) => (mirror ? [] : [name])));
