import { isDigest } from "../../digest.ts";
import type { Descriptor } from "../../descriptor.ts";
import { methodOf, type GrpcCallOptions, type GrpcChannel } from "../channel.ts";
import { field, listField, sizeField, stringField } from "../fields.ts";
import { GrpcStatus, grpcStatusOf } from "../status.ts";
import { imagesService } from "./proto.ts";

/** A name in containerd's image store, and the manifest or index it stands for. */
export interface ContainerdImage {
  readonly name: string;
  readonly target: Descriptor;
  /** Milliseconds since the epoch, by that machine's date; 0 when it does not say. */
  readonly createdAt: number;
}

const METHODS = { get: methodOf(imagesService, "Get"), list: methodOf(imagesService, "List") };

function readImage(message: unknown): ContainerdImage | undefined {
  const target = field(message, "target");
  const digest = stringField(target, "digest");
  const size = sizeField(target, "size");
  if (!isDigest(digest) || size === undefined) return undefined;
  return {
    name: stringField(message, "name"),
    target: { digest, size, mediaType: stringField(target, "mediaType") },
    createdAt: (sizeField(field(message, "createdAt"), "seconds") ?? 0) * 1000,
  };
}

/** containerd's image names. All methods reject with SourceError. */
export class ImagesClient {
  readonly #channel: GrpcChannel;

  constructor(channel: GrpcChannel) {
    this.#channel = channel;
  }

  async get(name: string, options?: GrpcCallOptions): Promise<ContainerdImage | undefined> {
    try {
      return readImage(field(await this.#channel.unary(METHODS.get, { name }, options), "image"));
    } catch (error) {
      if (grpcStatusOf(error) === GrpcStatus.notFound) return undefined;
      throw error;
    }
  }

  async list(options?: GrpcCallOptions): Promise<ContainerdImage[]> {
    const answer = await this.#channel.unary(METHODS.list, {}, options);
    return listField(answer, "images")
      .map(readImage)
      .filter((image) => image !== undefined);
  }
}
