import { saysWhere } from "@p2p-mirror/shared";
import { LRUCache } from "lru-cache";
import {
  endpointOf,
  type Endpoint,
  type RegistryConfig,
  type RegistryHost,
  type RegistryHosts,
} from "./registry-config.ts";

/** Whom to ask for a registry, in this order. */
export interface Chain {
  /** What a tag means. */
  readonly resolve: readonly Endpoint[];
  /** What has a digest, and lists. */
  readonly pull: readonly Endpoint[];
  /** All of them, each once. */
  readonly all: readonly Endpoint[];
}

export interface EndpointsOptions {
  /** The mirror's own settings, by lower-case name: they count before what is listed. */
  readonly registries: ReadonlyMap<string, RegistryConfig>;
  readonly hosts?: RegistryHosts | undefined;
}

/** The endpoints of each registry: as the mirror was told, else as others listed them, else the registry itself. */
export class Endpoints {
  readonly #options: EndpointsOptions;
  readonly #chains = new LRUCache<
    string,
    { readonly chain: Chain; readonly listed: readonly RegistryHost[] | undefined }
  >({ max: 1000 });

  constructor(options: EndpointsOptions) {
    this.#options = options;
  }

  /** @throws InvalidInputError (`NAME_INVALID`) for a name that no URL can have */
  of(registry: string): Chain {
    const config = this.#options.registries.get(registry.toLowerCase());
    const listed = saysWhere(config) ? undefined : this.#options.hosts?.of(registry);
    const known = this.#chains.get(registry);
    if (known !== undefined && known.listed === listed) return known.chain;
    const chain = listed === undefined ? alone(endpointOf(registry, config)) : chainOf(registry, listed);
    this.#chains.set(registry, { chain, listed });
    return chain;
  }

  /** Those of a registry that was asked for lately. */
  known(registry: string): Chain | undefined {
    return this.#chains.peek(registry)?.chain;
  }

  *lately(): Generator<Endpoint, void, undefined> {
    for (const { chain } of this.#chains.values()) yield* chain.all;
  }
}

const alone = (endpoint: Endpoint): Chain => ({ resolve: [endpoint], pull: [endpoint], all: [endpoint] });

function chainOf(registry: string, listed: readonly RegistryHost[]): Chain {
  const all = listed.map((host) => {
    const endpoint = endpointOf(registry, host);
    return { host, endpoint: { ...endpoint, listed: endpoint.namespace !== undefined } };
  });
  const those = (fits: (host: RegistryHost) => boolean): Endpoint[] => {
    const chosen = all.flatMap(({ host, endpoint }) => (fits(host) ? [endpoint] : []));
    return chosen.map((endpoint, index) => ({ ...endpoint, spare: index < chosen.length - 1 }));
  };
  return {
    resolve: those(({ resolves }) => resolves),
    pull: those(({ pulls }) => pulls),
    all: all.map(({ endpoint }) => endpoint),
  };
}
