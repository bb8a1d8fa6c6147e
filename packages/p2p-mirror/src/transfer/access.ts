import type { Digest, Repository } from "@p2p-mirror/shared";

/** What the endpoint knows of a request when access is decided. */
export interface AccessRequest extends Repository {
  /** The Authorization header as the client sent it, if any. */
  readonly authorization: string | undefined;
  /** The object it is about, where it is about one: some registries answer only for what exists. */
  readonly wants?: { readonly manifest: string } | { readonly blob: Digest } | undefined;
}

/** `decline` is a 404: containerd then asks upstream itself, with the Pod's credentials. */
export type AccessDecision = "allow" | "decline";

/** Port: the one place where it is decided whether a request may see a repository. Every request passes it. */
export interface Access {
  decide(request: AccessRequest, options: { signal: AbortSignal }): Promise<AccessDecision>;
}
