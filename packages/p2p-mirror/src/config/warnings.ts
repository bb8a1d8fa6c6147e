import { formatHostPort, isLoopback, type Resolved } from "@p2p-mirror/shared/config";
import type { MirrorConfig, MirrorSettings } from "./mirror-config.ts";

/** What is allowed, but should be known: one line each, logged at every start. */
export function warningsOf(config: MirrorConfig, resolved: Resolved<MirrorSettings>): string[] {
  const warnings: string[] = [];
  const warn = (when: boolean, text: string): void => {
    if (when) warnings.push(text);
  };
  const openRegistry = !isLoopback(config.registryListen.host);
  warn(
    config.access === "open",
    `access is open: whatever this mirror holds, private images too, is readable by everything ${openRegistry ? "that reaches this node" : "on this node"}`,
  );
  warn(
    openRegistry,
    `registry_listen ${formatHostPort(config.registryListen)} is beyond loopback: the endpoint is meant for this node only and asks nobody who they are`,
  );
  warn(
    !isLoopback(config.adminListen.host),
    `admin_listen ${formatHostPort(config.adminListen)} is beyond loopback: whoever reaches it can read the names of the images on this node`,
  );
  warn(
    config.clusterSecretFiles.length === 0 &&
      !(isLoopback(config.peerListen.host) && isLoopback(config.p2pListen.host)),
    "the mesh is open: without a cluster secret whoever reaches peer_listen and p2p_listen can join and fetch everything that is held",
  );
  for (const [name, registry] of config.registries) {
    warn(
      registry.skipVerify,
      `registries.${name}.skip_verify: any certificate is accepted, so tags of ${name} can be forged`,
    );
  }
  for (const { variable, meant } of resolved.suspicious) {
    warnings.push(`the environment variable ${variable} is read by nobody; did you mean ${meant}?`);
  }
  return warnings;
}
