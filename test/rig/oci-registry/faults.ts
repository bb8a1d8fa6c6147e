export type RequestKind =
  | "ping"
  | "token"
  | "manifest"
  | "blob"
  | "tags"
  | "referrers"
  | "upload"
  | "storage" /* the target of a blob redirect */
  | "unknown";

/** One request as the registry saw it; `status` and `bytesSent` fill in as it is answered. */
export interface RecordedRequest {
  readonly kind: RequestKind;
  readonly method: string;
  /** Address of the client. */
  readonly from: string | undefined;
  /** Path with query. */
  readonly path: string;
  readonly repository: string | undefined;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** The same; infinite until the answer has left, or its client. */
  endedAt: number;
  /** 0 until answered. */
  status: number;
  /** Body bytes handed to the socket. */
  bytesSent: number;
}

/** What is to go wrong, for requests that match. Fields combine (slow and cut, say), also over several faults. */
export interface Fault {
  /** All requests without it. `path`: a part of path and query; `from`: the client's address; `without`: a header. */
  readonly match?: {
    readonly kind?: RequestKind;
    readonly method?: string;
    readonly path?: string | RegExp;
    readonly from?: string;
    readonly without?: string;
  };
  /** Goes away after this many matching requests. Default: stays. */
  readonly times?: number;
  /** Milliseconds before the first byte of the answer. */
  readonly delayMs?: number;
  /** The request is read and never answered. */
  readonly silent?: boolean;
  /** This status with an OCI error body instead of the answer. */
  readonly status?: number;
  /** 307 to this place instead of the answer. */
  readonly redirect?: string;
  /** Retry-After as it goes out: seconds or a date. */
  readonly retryAfter?: string;
  /** Added to the answer. */
  readonly headers?: Readonly<Record<string, string>>;
  /** The OCI error code in the body of `status`, or the whole body. */
  readonly errorCode?: string;
  readonly body?: string;
  /** After so many body bytes: nothing more, the connection stays. */
  readonly stallAfter?: number;
  /** After so many body bytes: FIN. */
  readonly cutAfter?: number;
  /** After so many body bytes: RST. */
  readonly resetAfter?: number;
  /** Flips the bits of the byte at this offset of the body that goes out. */
  readonly corruptAt?: number;
  /** Content-Length says so many bytes more (or less) than the body has. */
  readonly lengthDelta?: number;
  /** Chunked, without Content-Length. */
  readonly chunked?: boolean;
  /** 200 and the whole blob to a Range request. */
  readonly ignoreRange?: boolean;
  /** Content-Range says it starts so many bytes later than it does. */
  readonly rangeShift?: number;
  /** No Docker-Content-Digest. */
  readonly withoutDigest?: boolean;
  /** Says this digest in Docker-Content-Digest. */
  readonly claimDigest?: string;
}

interface Active {
  readonly fault: Fault;
  left: number;
}

/** The faults of a registry, changed at run time. */
export class Faults {
  #active: Active[] = [];

  constructor(initial: readonly Fault[] = []) {
    for (const fault of initial) this.add(fault);
  }

  /** Returns the function that takes it away again. */
  add(fault: Fault): () => void {
    const active: Active = { fault, left: fault.times ?? Infinity };
    this.#active.push(active);
    return () => {
      this.#active = this.#active.filter((one) => one !== active);
    };
  }

  set(faults: readonly Fault[]): void {
    this.clear();
    for (const fault of faults) this.add(fault);
  }

  clear(): void {
    this.#active = [];
  }

  /** All matching faults in one, later ones over earlier ones; uses up one of their `times`. */
  take(request: RecordedRequest): Fault {
    let merged: Fault = {};
    for (const active of this.#active) {
      if (active.left <= 0 || !matches(active.fault, request)) continue;
      active.left -= 1;
      merged = { ...merged, ...active.fault };
    }
    return merged;
  }
}

function matches({ match }: Fault, request: RecordedRequest): boolean {
  if (match === undefined) return true;
  if (match.kind !== undefined && match.kind !== request.kind) return false;
  if (match.method !== undefined && match.method !== request.method) return false;
  if (match.from !== undefined && match.from !== request.from) return false;
  if (match.without !== undefined && request.headers[match.without] !== undefined) return false;
  if (match.path === undefined) return true;
  return typeof match.path === "string" ? request.path.includes(match.path) : match.path.test(request.path);
}
