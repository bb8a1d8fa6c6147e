import { noise, type NoiseComponents, type NoiseExtensions } from "@chainsafe/libp2p-noise";
import type { ConnectionEncrypter } from "@libp2p/interface";
import type { ClusterSecret, ClusterSecrets } from "./cluster-secret.ts";

type NoiseFactory = (components: NoiseComponents) => ConnectionEncrypter<NoiseExtensions>;

/**
 * A Noise handshake both sides of which have mixed the secret in (Noise spec, 6: a differing prologue fails it). The
 * secret's id in the protocol id lets the two sides find the secret they share, where plain `/noise` could only fail.
 */
function noiseOf(secret: ClusterSecret): NoiseFactory {
  const create = noise({ prologueBytes: secret.derive("libp2p noise prologue", 32) });
  return (components) => {
    const encrypter = create(components);
    encrypter.protocol = `/p2p-mirror/noise/${secret.id}`;
    return encrypter;
  };
}

/** For `connectionEncrypters` of libp2p: one per accepted secret, the first preferred for connections this node makes. */
export const clusterNoise = (secrets: ClusterSecrets): NoiseFactory[] => secrets.accepted.map(noiseOf);
