import { createCri } from "../cri.ts";
import { makeImage, pushImage } from "../images.ts";
import { until } from "../until.ts";
import { REGISTRY, type Cluster } from "./cluster.ts";
import type { KubernetesNode } from "./node.ts";

const MIB = 1024 * 1024;

export interface Pull {
  readonly node: KubernetesNode;
  /** Milliseconds since the epoch, as `ended`. */
  readonly began: number;
  readonly ended: number;
}

export interface LongPulls {
  /** Bytes of each layer of their images. */
  readonly layers: readonly number[];
  /** Bytes per second of upstream's link while the work lasts: it decides how long they are. */
  readonly rate: number;
}

/** Pulls of images that run nowhere, as kubelet does it, once: one that fails throws. */
export interface Pulls {
  /** The name of an image that nobody has yet; `layers` in bytes, default one of 2 MiB. */
  newImage(layers?: readonly number[]): Promise<string>;
  pull(node: KubernetesNode, repository: string): Promise<void>;
  /**
   * New images are pulled on all these nodes at once, one after the other, until the work is done; with `long`, larger ones
   * beside them, and the work begins when the first of these are under way.
   */
  during<T>(
    on: readonly KubernetesNode[],
    work: () => Promise<T>,
    long?: LongPulls,
  ): Promise<{ readonly made: readonly Pull[]; readonly result: T }>;
  /** Bytes that upstream sends while an image that `from` has is pulled by `to`. */
  bytesFromUpstream(from: KubernetesNode, to: KubernetesNode): Promise<number>;
}

const pull = async (node: KubernetesNode, repository: string): Promise<void> => {
  await using cri = createCri(node.machine.file(node.paths.socket));
  await cri.pull(`${REGISTRY}/${repository}:1`, { timeoutMs: 300_000 });
};

export function createPulls({ upstream }: Pick<Cluster, "upstream">): Pulls {
  let images = 0;
  const newImage = async (layers: readonly number[] = [2 * MIB]): Promise<string> => {
    const repository = `image-${++images}`;
    const image = makeImage({ seed: repository, layers });
    await pushImage(image, { registry: upstream.url, repository, tags: ["1"] });
    return repository;
  };
  return {
    newImage,
    pull,
    async during(on, work, long) {
      const done = new AbortController();
      const made: Pull[] = [];
      const pullOn = async (node: KubernetesNode, repository: string): Promise<void> => {
        const began = Date.now();
        await pull(node, repository);
        made.push({ node, began, ended: Date.now() });
      };
      const pullAll = async (first: string, layers?: readonly number[]): Promise<void> => {
        let repository = first;
        while (!done.signal.aborted) {
          const pulling = on.map((node) => pullOn(node, repository));
          // Made meanwhile, so that there is always somebody who pulls.
          [repository] = await Promise.all([newImage(layers), ...pulling]);
        }
      };
      const first = await newImage();
      const all = [pullAll(first)];
      if (long !== undefined) {
        const large = await newImage(long.layers);
        upstream.setRate(long.rate);
        all.push(pullAll(large, long.layers));
        await until("they are under way", () => upstream.bytesOf(large) > MIB, { timeoutMs: 60_000 });
      }
      const working = work().finally(() => {
        upstream.setRate(undefined);
        done.abort();
      });
      const [result] = await Promise.all([working, ...all]);
      return { made, result };
    },
    async bytesFromUpstream(from, to) {
      const repository = await newImage([8 * MIB]);
      await pull(from, repository);
      upstream.forget();
      await pull(to, repository);
      return upstream.bytesOf(repository);
    },
  };
}
