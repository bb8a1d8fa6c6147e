import { isDigest, type Digest } from "../../digest.ts";
import type { ByteRange } from "../../range.ts";
import { methodOf, type GrpcCallOptions, type GrpcChannel, type GrpcStreamOptions } from "../channel.ts";
import { bytesField, field, listField, mapField, sizeField, stringField, timestampField } from "../fields.ts";
import { GrpcStatus, grpcStatusOf } from "../status.ts";
import { contentService } from "./proto.ts";

/** A committed blob of one namespace. */
export interface ContentInfo {
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  /** When this namespace got it; another value means that it went and came back. Only for comparing. */
  readonly createdAt: string;
  readonly labels: ReadonlyMap<string, string>;
}

const METHODS = {
  info: methodOf(contentService, "Info"),
  list: methodOf(contentService, "List"),
  read: methodOf(contentService, "Read"),
};

/** Undefined for a digest algorithm that this project does not know. */
function readInfo(message: unknown): ContentInfo | undefined {
  const digest = stringField(message, "digest");
  const size = sizeField(message, "size");
  if (!isDigest(digest) || size === undefined) return undefined;
  return {
    digest,
    size,
    createdAt: timestampField(message, "createdAt"),
    labels: mapField(message, "labels"),
  };
}

/** containerd's content store as it is over gRPC. All methods reject with SourceError. */
export class ContentClient {
  readonly #channel: GrpcChannel;

  constructor(channel: GrpcChannel) {
    this.#channel = channel;
  }

  /** Undefined when the namespace does not hold the blob completely. */
  async info(digest: Digest, options?: GrpcCallOptions): Promise<ContentInfo | undefined> {
    try {
      return readInfo(field(await this.#channel.unary(METHODS.info, { digest }, options), "info"));
    } catch (error) {
      if (grpcStatusOf(error) === GrpcStatus.notFound) return undefined;
      throw error;
    }
  }

  /** All committed blobs of the namespace; containerd sends them a hundred at a time. */
  async *list(options?: GrpcStreamOptions): AsyncGenerator<ContentInfo, void, undefined> {
    for await (const page of this.#channel.stream(METHODS.list, {}, options)) {
      for (const message of listField(page, "info")) {
        const info = readInfo(message);
        if (info !== undefined) yield info;
      }
    }
  }

  /**
   * Bytes of a range that must not be empty (containerd reads a size of 0 as "all"), in messages of up to 1 MiB. May
   * end early when the file is shorter than containerd believes: the caller counts.
   */
  async *read(
    digest: Digest,
    range: ByteRange,
    options?: GrpcStreamOptions,
  ): AsyncGenerator<Buffer, void, undefined> {
    const request = { digest, offset: range.start, size: range.end - range.start };
    for await (const message of this.#channel.stream(METHODS.read, request, options)) {
      const data = bytesField(message, "data");
      if (data.byteLength > 0) yield data;
    }
  }
}
