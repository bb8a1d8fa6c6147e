import { NotFoundError } from "@libp2p/interface";
import { BaseDatastore } from "datastore-core";
import { Key, type Pair, type Query } from "interface-datastore";
import { base32 } from "multiformats/bases/base32";
import { decode as decodeMultihash } from "multiformats/hashes/digest";
import { bytesOf, keyHashOfBytes, type KeyHash } from "./key.ts";
import type { ProviderStore } from "./provider-store.ts";

const PREFIX = "/dht/provider/";

/** kad-dht stores when a record came, as a varint, and does not look at it when it answers; the provider store does. */
const TIME = Uint8Array.of(0);

/** kad-dht writes keys as `/dht/provider/<multihash in base32 without its prefix>/<peer ID>`. */
function parse(key: string): { hash: KeyHash; peer: string | undefined } | undefined {
  if (!key.startsWith(PREFIX)) return undefined;
  const [encoded, peer] = key.slice(PREFIX.length).split("/", 2);
  if (encoded === undefined || encoded === "") return undefined;
  try {
    const multihash = decodeMultihash(base32.decode(`b${encoded}`));
    return { hash: keyHashOfBytes(multihash.digest), peer };
  } catch {
    return undefined; // not a sha2-256: no key of ours
  }
}

export interface ProviderDatastoreDeps {
  /** What others said. */
  readonly store: ProviderStore;
  /** What this node has itself: does not expire, and counts against no bound. */
  readonly own: ReadonlySet<KeyHash>;
  readonly self: string;
  /** Whether libp2p knows a peer's addresses: kad-dht fails the whole answer over one provider without. */
  readonly isKnown: (peer: string) => boolean;
}

/**
 * The provider store in the shape kad-dht wants one. Its own code keeps records of any age for two days, without a bound,
 * and finds those of a key by going through all records of all keys (12 ms at 10,000). Everything that is no provider
 * record is let go: we use no other kind, and a peer could fill the memory with it.
 */
export class ProviderDatastore extends BaseDatastore {
  readonly #deps: ProviderDatastoreDeps;

  constructor(deps: ProviderDatastoreDeps) {
    super();
    this.#deps = deps;
  }

  override put(key: Key): Key {
    const record = parse(key.toString());
    if (record?.peer !== undefined) this.#deps.store.add(record.hash, record.peer);
    return key;
  }

  override delete(key: Key): void {
    const record = parse(key.toString());
    if (record?.peer !== undefined) this.#deps.store.remove(record.hash, record.peer);
  }

  override get(): Uint8Array {
    throw new NotFoundError("only provider records are kept");
  }

  override has(): boolean {
    return false;
  }

  /** Records of one key, newest first. The query over all keys (kad-dht's reprovider, whose work is ours) finds nothing. */
  override *query(query: Query): Generator<Pair> {
    const record = query.prefix === undefined ? undefined : parse(query.prefix);
    if (record === undefined) return;
    const encoded = base32.encode(Buffer.concat([Buffer.from([0x12, 0x20]), bytesOf(record.hash)])).slice(1);
    const { store, own, self, isKnown } = this.#deps;
    const others = store.providersOf(record.hash).filter(isKnown);
    for (const peer of own.has(record.hash) ? [self, ...others] : others) {
      yield { key: new Key(`${PREFIX}${encoded}/${peer}`, false), value: TIME };
    }
  }
}
