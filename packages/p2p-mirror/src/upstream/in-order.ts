import { IntegrityError, NotFoundError, SourceError, type Repository } from "@p2p-mirror/shared";
import type { Endpoint } from "./registry-config.ts";

/**
 * Asks one host of a registry after the other, as containerd does: whatever one failed with, the next is asked
 * (facts/containerd.md 3.3). When all have failed the last one's word counts: it is the registry, the others stand in.
 * @throws NotFoundError (`NAME_UNKNOWN`) when nobody may be asked for this
 */
export async function inOrder<T>(
  endpoints: readonly Endpoint[],
  repository: Repository,
  signal: AbortSignal | undefined,
  ask: (endpoint: Endpoint) => Promise<T>,
): Promise<T> {
  let failure: Error | undefined;
  for (const endpoint of endpoints) {
    try {
      return await ask(endpoint);
    } catch (error) {
      signal?.throwIfAborted();
      if (!isOfThisHost(error)) throw error;
      failure = error;
    }
  }
  throw failure ?? nobodyGives(repository);
}

/** As if it were not there: whoever asked goes on to somebody else, at once. */
export const nobodyGives = ({ registry, repository }: Repository): NotFoundError =>
  new NotFoundError("NAME_UNKNOWN", `a host that gives ${registry}/${repository}`);

const isOfThisHost = (error: unknown): error is Error =>
  error instanceof SourceError || error instanceof NotFoundError || error instanceof IntegrityError;
