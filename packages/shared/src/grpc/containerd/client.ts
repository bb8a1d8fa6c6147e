import { GrpcChannel, methodOf, type GrpcCallOptions } from "../channel.ts";
import { listField, mapField, stringField } from "../fields.ts";
import { ContentClient } from "./content.ts";
import { EventsClient } from "./events.ts";
import { ImagesClient } from "./images.ts";
import { introspectionService, versionService } from "./proto.ts";

export interface ContainerdOptions {
  /** Path of containerd's unix socket. */
  readonly socket: string;
  /** containerd's namespace; Kubernetes uses `k8s.io`. Names are of letters, digits, `-`, `_` and `.`. */
  readonly namespace: string;
  /** Milliseconds a unary call may take, default 5,000. */
  readonly timeoutMs?: number | undefined;
}

const VERSION = methodOf(versionService, "Version");
const PLUGINS = methodOf(introspectionService, "Plugins");

/** One connection to a containerd. It does not come back when it is lost: make a new one. */
export class ContainerdClient {
  readonly content: ContentClient;
  readonly images: ImagesClient;
  readonly events: EventsClient;
  readonly #channel: GrpcChannel;

  constructor(options: ContainerdOptions) {
    this.#channel = new GrpcChannel({
      socket: options.socket,
      source: "containerd",
      headers: { "containerd-namespace": options.namespace },
      timeoutMs: options.timeoutMs,
    });
    this.content = new ContentClient(this.#channel);
    this.images = new ImagesClient(this.#channel);
    this.events = new EventsClient(this.#channel, options.namespace);
  }

  /** As containerd writes it, for example `1.7.24~ds1`. Rejects with SourceError when it does not answer. */
  async version(options?: GrpcCallOptions): Promise<string> {
    return stringField(await this.#channel.unary(VERSION, {}, options), "version");
  }

  /**
   * Where the content plugin keeps its files, as containerd sees it (in a container the path may be another), or
   * undefined when it does not say.
   */
  async contentRoot(options?: GrpcCallOptions): Promise<string | undefined> {
    const answer = await this.#channel.unary(
      PLUGINS,
      { filters: ["type==io.containerd.content.v1"] },
      options,
    );
    for (const plugin of listField(answer, "plugins")) {
      const root = mapField(plugin, "exports").get("root");
      if (root !== undefined && stringField(plugin, "type") === "io.containerd.content.v1") return root;
    }
    return undefined;
  }

  close(): void {
    this.#channel.close();
  }
}
