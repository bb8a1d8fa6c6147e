import type { Check } from "./check.ts";
import { canary } from "./checks/canary.ts";
import { clock } from "./checks/clock.ts";
import { configPath } from "./checks/config-path.ts";
import { containerdVersion } from "./checks/containerd-version.ts";
import { discardedLayers } from "./checks/discarded-layers.ts";
import { disk } from "./checks/disk.ts";
import { hostsFiles } from "./checks/hosts-files.ts";
import { neverAsked } from "./checks/never-asked.ts";
import { peers } from "./checks/peers.ts";
import { ports } from "./checks/ports.ts";
import { registryMirrors } from "./checks/registry-mirrors.ts";
import { upstreams } from "./checks/upstreams.ts";

/** All of them, in the order in which a reader wants to know. */
export const CHECKS: readonly Check[] = [
  ports,
  configPath,
  registryMirrors,
  hostsFiles,
  canary,
  neverAsked,
  containerdVersion,
  discardedLayers,
  disk,
  clock,
  peers,
  upstreams,
];
