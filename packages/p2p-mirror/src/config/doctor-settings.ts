import type { GroupSchema } from "@p2p-mirror/shared/config";
import { MIRROR_SCHEMA } from "./schema.ts";

const { hosts_dir, containerd_socket, containerd_config, data_dir } = MIRROR_SCHEMA.properties;

/** The settings that `doctor` also takes as flags: where things are on this node. */
export const DOCTOR_SETTINGS = {
  type: "object",
  additionalProperties: false,
  properties: { hosts_dir, containerd_socket, containerd_config, data_dir },
} as const satisfies GroupSchema;
