import type { Descriptor, Repository } from "@p2p-mirror/shared";

/**
 * What a node says it learned at upstream. `tag`: the tag pointed to this manifest; `repository`: upstream gives the
 * repository to anonymous clients. `time`: milliseconds since the epoch, by the signer's clock, when upstream said so.
 */
export type Claim =
  | (Repository & {
      readonly kind: "tag";
      readonly tag: string;
      readonly descriptor: Descriptor;
      readonly time: number;
    })
  | (Repository & { readonly kind: "repository"; readonly time: number });

/** A claim of another node, with the text that it signed: so it can be given on, and stays that node's word. */
export interface HeardClaim {
  readonly claim: Claim;
  readonly record: string;
}

/** Port: claims as signed text. Whoever holds the cluster secret can sign; the identity is known for metrics and bans. */
export interface RecordSigner {
  sign(claim: Claim): string;
  /** Undefined for what is not well formed, not signed by a peer, or from the future. */
  verify(text: string): Claim | undefined;
}

export const tagKey = ({ registry, repository }: Repository, tag: string): `tag:${string}` =>
  `tag:${registry}/${repository}:${tag}`;

export const repositoryKey = ({ registry, repository }: Repository): `repository:${string}` =>
  `repository:${registry}/${repository}`;
