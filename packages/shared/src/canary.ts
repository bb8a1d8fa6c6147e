/**
 * The image that is asked for to see whether requests arrive: a name that no registry has (RFC 2606 keeps `.invalid` free),
 * so that a mirror which gets it knows what it is for, and nobody else can have it.
 */
export const CANARY = {
  /** Where no hosts.toml is of a registry of its own. */
  registry: "canary.p2p-mirror.invalid",
  repository: "p2p-mirror.invalid/canary",
} as const;
