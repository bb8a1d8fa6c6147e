import { isDigest, type Digest } from "../../digest.ts";
import { methodOf, type GrpcChannel, type GrpcStreamOptions } from "../channel.ts";
import { bytesField, field, sizeField, stringField } from "../fields.ts";
import { containerdContracts, eventsService } from "./proto.ts";

/**
 * What containerd said happened. `content-created` comes from 2.1 on only; `content-deleted` only for an explicit
 * delete: nothing is ever said of what garbage collection takes.
 */
export type ContainerdEvent =
  | { readonly kind: "content-created"; readonly digest: Digest; readonly size: number }
  | { readonly kind: "content-deleted"; readonly digest: Digest }
  | { readonly kind: "image-changed"; readonly name: string }
  | { readonly kind: "image-deleted"; readonly name: string }
  | { readonly kind: "snapshot-removed" };

const SUBSCRIBE = methodOf(eventsService, "Subscribe");
const CONTENT_CREATE = containerdContracts.message("containerd.events.ContentCreate");
const CONTENT_DELETE = containerdContracts.message("containerd.events.ContentDelete");
const IMAGE_CREATE = containerdContracts.message("containerd.services.images.v1.ImageCreate");
const IMAGE_DELETE = containerdContracts.message("containerd.services.images.v1.ImageDelete");

function readEvent(envelope: unknown): ContainerdEvent | undefined {
  const payload = bytesField(field(envelope, "event"), "value");
  switch (stringField(envelope, "topic")) {
    case "/content/create": {
      const message = CONTENT_CREATE.deserialize(payload);
      const digest = stringField(message, "digest");
      const size = sizeField(message, "size");
      return isDigest(digest) && size !== undefined ? { kind: "content-created", digest, size } : undefined;
    }
    case "/content/delete": {
      const digest = stringField(CONTENT_DELETE.deserialize(payload), "digest");
      return isDigest(digest) ? { kind: "content-deleted", digest } : undefined;
    }
    case "/images/create":
    case "/images/update":
      // The two messages have the same fields under the same numbers.
      return { kind: "image-changed", name: stringField(IMAGE_CREATE.deserialize(payload), "name") };
    case "/images/delete":
      return { kind: "image-deleted", name: stringField(IMAGE_DELETE.deserialize(payload), "name") };
    case "/snapshot/remove":
      return { kind: "snapshot-removed" };
    default:
      return undefined;
  }
}

/** containerd's event stream. */
export class EventsClient {
  readonly #channel: GrpcChannel;
  readonly #namespace: string;

  constructor(channel: GrpcChannel, namespace: string) {
    this.#channel = channel;
    this.#namespace = namespace;
  }

  /**
   * Events of this client's namespace about content and images, from now on, until the connection ends (SourceError).
   * The first ones may be lost: containerd says nothing when the subscription stands.
   */
  async *subscribe(options?: GrpcStreamOptions): AsyncGenerator<ContainerdEvent, void, undefined> {
    const here = `namespace==${JSON.stringify(this.#namespace)}`;
    const filters = ['topic~="^/(images|content)/"', 'topic=="/snapshot/remove"'].map(
      (topic) => `${here},${topic}`,
    );
    for await (const envelope of this.#channel.stream(SUBSCRIBE, { filters }, options)) {
      let event: ContainerdEvent | undefined;
      try {
        event = readEvent(envelope);
      } catch {
        // A payload that does not decode is no event of ours.
      }
      if (event !== undefined) yield event;
    }
  }
}
