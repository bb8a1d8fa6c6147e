import path from "node:path";
import { Client, credentials, type ServiceError } from "@grpc/grpc-js";
import { loadSync, type MethodDefinition } from "@grpc/proto-loader";
import { RigError } from "./errors.ts";

export interface CriImage {
  /** sha256:<hex> of the config. */
  readonly id: string;
  readonly repoTags: readonly string[];
  readonly repoDigests: readonly string[];
  /** Bytes, as containerd counts. */
  readonly size: number;
  readonly pinned: boolean;
}

export interface CriAuth {
  readonly username: string;
  readonly password: string;
  /** Kubelet leaves it empty for pull secrets. */
  readonly serverAddress?: string;
}

export interface CriCallOptions {
  /** Milliseconds, default 120,000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** What kubelet asks of containerd about images. Errors are the ServiceError of gRPC (numeric `code`). */
export interface Cri extends AsyncDisposable {
  /** Pulls and unpacks (as root; neither runc nor CNI is needed). Gives the image's ID. */
  pull(reference: string, options?: CriCallOptions & { auth?: CriAuth }): Promise<string>;
  list(options?: CriCallOptions): Promise<CriImage[]>;
  status(reference: string, options?: CriCallOptions): Promise<CriImage | undefined>;
  remove(reference: string, options?: CriCallOptions): Promise<void>;
  close(): void;
}

const SERVICE = "runtime.v1.ImageService";

export function createCri(socket: string): Cri {
  const loaded = loadSync(path.join(import.meta.dirname, "proto/cri.proto"), {
    longs: Number,
    defaults: true,
  });
  const service = loaded[SERVICE];
  const client = new Client(`unix://${socket}`, credentials.createInsecure());

  const call = (name: string, request: object, options: CriCallOptions = {}): Promise<object> => {
    const method = methodOf(service, name);
    const { timeoutMs = 120_000, signal } = options;
    return new Promise((resolve, reject) => {
      const running = client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        { deadline: Date.now() + timeoutMs },
        (error: ServiceError | null, answer?: object) => {
          signal?.removeEventListener("abort", cancel);
          if (error !== null) reject(error);
          else resolve(answer ?? {});
        },
      );
      const cancel = (): void => running.cancel();
      signal?.addEventListener("abort", cancel, { once: true });
      if (signal?.aborted === true) cancel();
    });
  };

  const close = (): void => client.close();
  return {
    async pull(image, options = {}) {
      const { auth } = options;
      const answer = await call(
        "PullImage",
        { image: { image }, ...(auth === undefined ? {} : { auth }) },
        options,
      );
      return text(Reflect.get(answer, "imageRef"));
    },
    async list(options) {
      return objects(Reflect.get(await call("ListImages", {}, options), "images")).map(toImage);
    },
    async status(image, options) {
      const [found] = objects([
        Reflect.get(await call("ImageStatus", { image: { image } }, options), "image"),
      ]);
      return found === undefined ? undefined : toImage(found);
    },
    async remove(image, options) {
      await call("RemoveImage", { image: { image } }, options);
    },
    close,
    [Symbol.asyncDispose]: async () => close(),
  };
}

/**
 * Resolves when containerd answers to kubelet. It answers to `ctr` before that, and a kubelet that comes too early ends
 * ("server is not initialized yet").
 */
export async function answersKubelet(socket: string): Promise<true> {
  await using cri = createCri(socket);
  await cri.list({ timeoutMs: 5_000 });
  return true;
}

type Method = MethodDefinition<object, object>;

function methodOf(service: unknown, name: string): Method {
  const method: unknown =
    typeof service === "object" && service !== null ? Reflect.get(service, name) : undefined;
  if (!isMethod(method)) throw new RigError("COMMAND_FAILED", `${SERVICE}.${name} is not in the proto file`);
  return method;
}

const isMethod = (value: unknown): value is Method =>
  typeof value === "object" &&
  value !== null &&
  "requestSerialize" in value &&
  "responseDeserialize" in value;

const toImage = (image: object): CriImage => ({
  id: text(Reflect.get(image, "id")),
  repoTags: texts(Reflect.get(image, "repoTags")),
  repoDigests: texts(Reflect.get(image, "repoDigests")),
  size: Number(Reflect.get(image, "size")),
  pinned: Reflect.get(image, "pinned") === true,
});

const text = (value: unknown): string => (typeof value === "string" ? value : "");
const texts = (value: unknown): string[] => (Array.isArray(value) ? value.map(text) : []);
const objects = (value: unknown): object[] =>
  Array.isArray(value) ? value.filter((one: unknown) => typeof one === "object" && one !== null) : [];
