import type { GroupSchema } from "@p2p-mirror/shared/config";
import { MIRROR_SCHEMA } from "./schema.ts";

/** What the commands that look after hosts.toml files need to know of a mirror's settings. */
export const HOSTS_DIR_SETTING = {
  type: "object",
  additionalProperties: false,
  properties: { hosts_dir: MIRROR_SCHEMA.properties.hosts_dir },
} as const satisfies GroupSchema;
