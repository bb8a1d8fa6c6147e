import { CANARY } from "@p2p-mirror/shared";
import type { DistributionPath } from "./distribution-path.ts";

const MAX_CANARIES = 16;

/** Who came to the endpoint: whether containerd asks at all, and canaries that were sent to find out. */
export class Arrivals {
  /** For images, canaries not counted. */
  requests = 0;
  #canaries: readonly string[] = [];

  /** Tags of the last canaries. */
  get canaries(): readonly string[] {
    return this.#canaries;
  }

  /** True when it is a canary, of which there is nothing to get. */
  note(path: Exclude<DistributionPath, { kind: "base" }>): boolean {
    if (path.repository !== CANARY.repository) {
      this.requests += 1;
      return false;
    }
    if (path.kind === "tag") this.#canaries = [path.tag, ...this.#canaries].slice(0, MAX_CANARIES);
    return true;
  }
}
