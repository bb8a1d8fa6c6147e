import { DOCKER_HUB, SingleFlight, type Logger, type Repository } from "@p2p-mirror/shared";
import { readFile, stat } from "node:fs/promises";
import { LRUCache } from "lru-cache";
import { askHelper, CredentialHelperError, type HelperOptions } from "./credential-helper.ts";
import { lookup, parseDockerConfig, type Credentials, type DockerConfig } from "./docker-config.ts";
import type { UpstreamMetrics } from "./metrics.ts";

export interface CredentialsOptions {
  readonly dockerConfigFile: string | undefined;
  readonly helper: HelperOptions;
}

const MAX_CONFIG_BYTES = 1024 * 1024;
/** Helpers of the clouds keep their own tokens for hours; this only spares a process per layer. */
const HELPER_TTL_MS = 60_000;
const HUB_SERVER = "https://index.docker.io/v1/";
const NOTHING: DockerConfig = { auths: new Map(), credHelpers: new Map(), credsStore: undefined };

/**
 * The pull credentials this node was given: a docker config.json, read again when it changes (Secrets are rotated under
 * running Pods). Without the file, or with one that cannot be read (said once per change), there are none.
 */
export class CredentialStore {
  readonly #options: CredentialsOptions;
  readonly #logger: Logger;
  readonly #metrics: UpstreamMetrics;
  readonly #helped = new LRUCache<string, { readonly found: Credentials | undefined }>({
    max: 200,
    ttl: HELPER_TTL_MS,
  });
  readonly #flights = new SingleFlight<Credentials | undefined>();
  readonly #reading = new SingleFlight<DockerConfig>();
  #config = NOTHING;
  #version = "";

  constructor(options: CredentialsOptions, deps: { logger: Logger; metrics: UpstreamMetrics }) {
    this.#options = options;
    this.#logger = deps.logger;
    this.#metrics = deps.metrics;
  }

  /** Order as in docker: the registry's own helper, the store for all, the file's entries. */
  async for(repository: Repository): Promise<Credentials | undefined> {
    const config = await this.#read();
    const own = lookup(config.credHelpers, repository);
    if (own !== undefined) return this.#ask(own, repository.registry);
    const stored =
      config.credsStore === undefined ? undefined : await this.#ask(config.credsStore, repository.registry);
    return stored ?? lookup(config.auths, repository);
  }

  /** The registry refused them: whatever a helper gave is asked for again. */
  refused(registry: string): void {
    for (const key of this.#helped.keys()) if (key.endsWith(` ${registry}`)) this.#helped.delete(key);
  }

  #read(): Promise<DockerConfig> {
    const file = this.#options.dockerConfigFile;
    // One at a time: a late one would forget what a helper has just given.
    return file === undefined
      ? Promise.resolve(NOTHING)
      : this.#reading.run(file, () => this.#readFile(file));
  }

  async #readFile(file: string): Promise<DockerConfig> {
    let version = "absent";
    try {
      const { mtimeMs, size, ino } = await stat(file);
      version = `${mtimeMs} ${size} ${ino}`;
      if (version === this.#version) return this.#config;
      if (size > MAX_CONFIG_BYTES) throw new RangeError("the docker config is larger than 1 MiB");
      this.#config = parseDockerConfig(await readFile(file, "utf8"));
      this.#helped.clear();
    } catch (error) {
      if (version === this.#version) return this.#config;
      this.#config = NOTHING;
      // The parser's message quotes the file.
      const why = error instanceof SyntaxError ? "no JSON" : error instanceof Error ? error.message : "";
      this.#logger.warn({ file, why }, "no pull credentials: the docker config cannot be read");
    }
    this.#version = version;
    return this.#config;
  }

  async #ask(helper: string, registry: string): Promise<Credentials | undefined> {
    const key = `${helper} ${registry}`;
    const known = this.#helped.get(key);
    if (known !== undefined) return known.found;
    return this.#flights.run(key, async () => {
      try {
        const server = registry === DOCKER_HUB ? HUB_SERVER : registry;
        const found = await askHelper(helper, server, this.#options.helper);
        this.#helped.set(key, { found });
        this.#metrics.helpers.inc({ outcome: found === undefined ? "none" : "found" });
        return found;
      } catch (error) {
        const why = error instanceof CredentialHelperError ? error.message : "failed";
        this.#logger.warn({ registry, why }, "no pull credentials: the credential helper failed");
        this.#metrics.helpers.inc({ outcome: "failed" });
        return undefined;
      }
    });
  }
}
