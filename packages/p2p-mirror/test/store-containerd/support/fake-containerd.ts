import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import {
  Server,
  ServerCredentials,
  status,
  type sendUnaryData,
  type ServerUnaryCall,
  type ServerWritableStream,
  type UntypedHandleCall,
} from "@grpc/grpc-js";
import { digestOf, type Digest } from "@p2p-mirror/shared";
import {
  containerdContracts,
  contentService,
  eventsService,
  field,
  imagesService,
  introspectionService,
  sizeField,
  stringField,
  versionService,
} from "@p2p-mirror/shared/grpc";

interface FakeBlob {
  readonly bytes: Uint8Array;
  /** What containerd believes; default: the bytes' own. */
  readonly size?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly createdAt?: number;
}

/** Called for each Content.Read instead of the usual answer. */
export type ReadScript = (call: ServerWritableStream<object, object>, offset: number, size: number) => void;

/**
 * Speaks containerd's protos over a real unix socket, for what a real containerd cannot be made to do: to be silent, to
 * lie, to stop in the middle of a message stream. Everything else is tested with real ones.
 */
export class FakeContainerd implements AsyncDisposable {
  readonly socket: string;
  readonly blobs = new Map<string, FakeBlob>();
  readonly images = new Map<string, Digest>();
  readonly namespaces = new Set<string>();
  readonly calls: string[] = [];
  /** Read messages written, and reads the client has cancelled. */
  readonly reads = { written: 0, cancelled: 0 };
  /** While true, nothing but connections is answered. */
  frozen = false;
  script: ReadScript | undefined;
  contentRoot = "";
  readonly #home: string;
  readonly #subscribers = new Set<ServerWritableStream<object, object>>();
  #server: Server | undefined;

  private constructor(home: string) {
    this.#home = home;
    this.socket = path.join(home, "c.sock");
  }

  static async create(): Promise<FakeContainerd> {
    return new FakeContainerd(await mkdtemp(path.join(os.tmpdir(), "p2pm-fake-")));
  }

  get subscribers(): number {
    return this.#subscribers.size;
  }

  async start(): Promise<void> {
    await rm(this.socket, { force: true });
    const server = new Server();
    server.addService(contentService, {
      Info: this.#unary("Info", (request) => this.#info(stringField(request, "digest"))),
      List: this.#stream("List", (call) => this.#list(call)),
      Read: this.#stream("Read", (call) => this.#read(call)),
    });
    server.addService(imagesService, {
      Get: this.#unary("Get", (request) => this.#image(stringField(request, "name"))),
      List: this.#unary("Images", () => ({
        images: [...this.images.keys()].map((name) => this.#image(name)?.image),
      })),
    });
    server.addService(eventsService, {
      Subscribe: this.#stream("Subscribe", (call) => {
        this.#subscribers.add(call);
        call.on("cancelled", () => this.#subscribers.delete(call));
      }),
    });
    server.addService(introspectionService, {
      Plugins: this.#unary("Plugins", () => ({
        plugins: [{ type: "io.containerd.content.v1", id: "content", exports: { root: this.contentRoot } }],
      })),
    });
    server.addService(versionService, { Version: this.#unary("Version", () => ({ version: "0.0-fake" })) });
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix://${this.socket}`, ServerCredentials.createInsecure(), (error) =>
        error === null ? resolve() : reject(error),
      );
    });
    this.#server = server;
  }

  /** Every connection is cut, as by a crash. */
  stop(): void {
    this.#server?.forceShutdown();
    this.#server = undefined;
    this.#subscribers.clear();
  }

  put(bytes: Uint8Array, extra: Omit<FakeBlob, "bytes"> = {}): Digest {
    const digest = digestOf(bytes);
    this.blobs.set(digest, { bytes, ...extra });
    return digest;
  }

  publish(topic: string, type: string, payload: object | Uint8Array): void {
    const value =
      payload instanceof Uint8Array ? payload : containerdContracts.message(type).serialize(payload);
    for (const call of this.#subscribers) {
      call.write({ namespace: "k8s.io", topic, event: { typeUrl: type, value } });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.stop();
    await rm(this.#home, { recursive: true, force: true });
  }

  #unary(name: string, answer: (request: object) => object | undefined): UntypedHandleCall {
    return (call: ServerUnaryCall<object, object>, callback: sendUnaryData<object>) => {
      this.#note(name, call.metadata.get("containerd-namespace"));
      if (this.frozen) return;
      const value = answer(call.request);
      if (value === undefined) callback({ code: status.NOT_FOUND, details: "not found" });
      else callback(null, value);
    };
  }

  #stream(name: string, handle: (call: ServerWritableStream<object, object>) => void): UntypedHandleCall {
    return (call: ServerWritableStream<object, object>) => {
      this.#note(name, call.metadata.get("containerd-namespace"));
      if (!this.frozen) handle(call);
    };
  }

  #note(name: string, namespaces: readonly unknown[]): void {
    this.calls.push(name);
    for (const namespace of namespaces) this.namespaces.add(String(namespace));
  }

  #info(digest: string): object | undefined {
    const blob = this.blobs.get(digest);
    if (blob === undefined) return undefined;
    const { bytes, size = bytes.byteLength, labels = {}, createdAt = 1 } = blob;
    return { info: { digest, size, labels, createdAt: { seconds: createdAt, nanos: 0 } } };
  }

  #image(name: string): { image: object } | undefined {
    const digest = this.images.get(name);
    if (digest === undefined) return undefined;
    const size = this.blobs.get(digest)?.bytes.byteLength ?? 0;
    return {
      image: { name, target: { digest, size, mediaType: "application/vnd.oci.image.index.v1+json" } },
    };
  }

  #list(call: ServerWritableStream<object, object>): void {
    const infos = [...this.blobs.keys()].map((digest) => field(this.#info(digest), "info"));
    for (let at = 0; at < infos.length; at += 100) call.write({ info: infos.slice(at, at + 100) });
    call.end();
  }

  #read(call: ServerWritableStream<object, object>): void {
    call.on("cancelled", () => (this.reads.cancelled += 1));
    const offset = sizeField(call.request, "offset") ?? 0;
    const size = sizeField(call.request, "size") ?? 0;
    const blob = this.blobs.get(stringField(call.request, "digest"));
    if (this.script !== undefined) return this.script(call, offset, size);
    if (blob === undefined) {
      call.emit("error", { code: status.NOT_FOUND, details: "not found" });
      return;
    }
    void this.#send(call, blob.bytes.subarray(offset, offset + size));
  }

  /** As containerd does: messages of 1 MiB, each when the transport takes it. */
  async #send(call: ServerWritableStream<object, object>, bytes: Uint8Array): Promise<void> {
    const step = 1024 * 1024;
    for (let at = 0; at < bytes.byteLength && !call.cancelled; at += step) {
      const drained = call.write({ offset: at, data: bytes.subarray(at, at + step) });
      this.reads.written += 1;
      if (!drained) await new Promise((resolve) => call.once("drain", resolve).once("cancelled", resolve));
    }
    call.end();
  }
}
