/**
 * What a mirror says of itself when it asks a host that somebody else has listed: mirrors decline requests that come from
 * a mirror, so that one listed as another's host, or as its own, is no detour and no loop (RFC 9110, 7.6.3).
 */
export const VIA_MIRROR = "1.1 p2p-mirror";

export const cameFromMirror = (via: string | undefined): boolean =>
  via !== undefined && via.split(",").some((hop) => hop.trim() === VIA_MIRROR);
