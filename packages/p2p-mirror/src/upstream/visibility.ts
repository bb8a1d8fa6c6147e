import {
  isDigest,
  isKnownByConfig,
  NotFoundError,
  raceSignal,
  SingleFlight,
  SourceError,
  type Descriptor,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import { LRUCache } from "lru-cache";
import type { Chain } from "./endpoints.ts";
import { resolveManifest } from "./manifests.ts";
import type { ObjectClient } from "./object-client.ts";
import { anonymousOf, type Endpoint } from "./registry-config.ts";

/** Something a request wants from the repository, by which its visibility can be tried. */
export type Probe = { readonly manifest: string } | { readonly blob: Digest };

export interface VisibilityOptions {
  /** Milliseconds a verdict counts. */
  readonly yesMs: number;
  readonly noMs: number;
  /** This node has logins: then nobody's requests must be told apart from its own, tokens included. */
  readonly hasLogins: boolean;
}

/** Milliseconds in which what a tag meant to nobody is still the answer to who was just let in. */
const RESOLVED_MS = 2000;

/**
 * Whether anybody may pull from a repository. The rule: **yes only on a 2xx to a request without any credentials**
 * (a token for nobody is none: docker.io gives one for any name, and its registry then refuses), first for what is wanted
 * itself, then, if that is not there (404), for the list of tags, which registries guard by the same pull permission.
 * 401 or 403 from the registry or its token server: no. 404 to both: no, since some registries (Artifactory, GitHub's)
 * hide what they refuse behind a 404, and nobody gets anything there anyway. Of several hosts one yes is enough, since
 * containerd would ask them all; when none says it, the last one's word counts, as for everything else.
 */
export class Visibility {
  readonly #options: VisibilityOptions;
  readonly #client: ObjectClient;
  readonly #verdicts = new LRUCache<string, boolean>({ max: 10_000 });
  /** What was last got from a public repository: the list of tags is refused by some that give everything else. */
  readonly #probes = new LRUCache<string, Probe>({ max: 10_000 });
  readonly #resolved = new LRUCache<string, Descriptor>({ max: 1000, ttl: RESOLVED_MS });
  readonly #flights = new SingleFlight<boolean>();

  constructor(options: VisibilityOptions, deps: { readonly client: ObjectClient }) {
    this.#options = options;
    this.#client = deps.client;
  }

  /** Upstream gave something of it to a request without credentials. */
  learnPublic(repository: Repository): void {
    this.#verdicts.set(keyOf(repository), true, { ttl: this.#options.yesMs });
  }

  /** Upstream refused it to this node. */
  forget(repository: Repository): void {
    this.#verdicts.delete(keyOf(repository));
  }

  /** What a tag was found to mean while asking whether it is public: the same HEAD again would only take time. */
  justResolved(repository: Repository, tag: string): Descriptor | undefined {
    const key = `${keyOf(repository)}:${tag}`;
    const found = this.#resolved.get(key);
    this.#resolved.delete(key);
    return found;
  }

  /** @throws SourceError when upstream cannot say now */
  async isPublic(
    chain: Pick<Chain, "resolve" | "pull">,
    repository: Repository,
    probe: Probe | undefined,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const key = keyOf(repository);
    const known = this.#verdicts.get(key);
    if (known !== undefined) return known;
    return raceSignal(
      this.#flights.run(key, async () => {
        const isTag = probe !== undefined && "manifest" in probe && !isDigest(probe.manifest);
        const verdict = await this.#askAll(isTag ? chain.resolve : chain.pull, repository, probe);
        this.#verdicts.set(key, verdict, { ttl: verdict ? this.#options.yesMs : this.#options.noMs });
        return verdict;
      }),
      signal,
    );
  }

  async #askAll(
    endpoints: readonly Endpoint[],
    repository: Repository,
    probe: Probe | undefined,
  ): Promise<boolean> {
    let failure: SourceError | undefined;
    for (const endpoint of endpoints) {
      const isKnown = this.#options.hasLogins || isKnownByConfig(endpoint.config);
      try {
        if (await this.#ask(isKnown ? anonymousOf(endpoint) : endpoint, repository, probe)) return true;
        failure = undefined;
      } catch (error) {
        if (!(error instanceof SourceError)) throw error;
        failure = error;
      }
    }
    if (failure !== undefined) throw failure;
    return false;
  }

  async #ask(endpoint: Endpoint, repository: Repository, probe: Probe | undefined): Promise<boolean> {
    const key = keyOf(repository);
    const remembered = this.#probes.get(key);
    const tries = [probe, remembered].filter((one) => one !== undefined);
    for (const one of tries) {
      const answer = await this.#try(async () => {
        const resolved = await this.#probe(endpoint, repository, one);
        if (one === probe && resolved !== undefined && "manifest" in one) {
          this.#resolved.set(`${key}:${one.manifest}`, resolved);
        }
      });
      if (answer === "yes") this.#probes.set(key, one);
      if (answer !== "absent") return answer === "yes";
    }
    return (await this.#try(() => this.#listTags(endpoint, repository))) === "yes";
  }

  async #try(ask: () => Promise<unknown>): Promise<"yes" | "no" | "absent"> {
    try {
      await ask();
      return "yes";
    } catch (error) {
      if (error instanceof NotFoundError) return "absent";
      if (error instanceof SourceError && error.code === "DENIED") return "no";
      throw error;
    }
  }

  async #probe(endpoint: Endpoint, repository: Repository, probe: Probe): Promise<Descriptor | undefined> {
    if ("blob" in probe) {
      await this.#head(endpoint, repository, `blobs/${probe.blob}`, "HEAD");
      return undefined;
    }
    const { manifest } = probe;
    return (await resolveManifest(this.#client, endpoint, repository, manifest, undefined)).descriptor;
  }

  #listTags(endpoint: Endpoint, repository: Repository): Promise<unknown> {
    return this.#head(endpoint, repository, "tags/list", "GET");
  }

  #head(endpoint: Endpoint, repository: Repository, rest: string, method: "GET" | "HEAD"): Promise<unknown> {
    const kind = method === "HEAD" ? "blob" : "tags";
    const query = kind === "tags" ? { n: "1" } : {};
    return this.#client.run(
      endpoint,
      { kind, method, repository, rest, query, signal: undefined },
      (answer) => {
        answer.body.on("error", () => undefined);
        void answer.body.dump({ limit: 1024 * 1024 }).catch(() => undefined);
      },
    );
  }
}

const keyOf = ({ registry, repository }: Repository): string => `${registry}/${repository}`;
