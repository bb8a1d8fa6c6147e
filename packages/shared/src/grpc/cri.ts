import { GrpcChannel, methodOf, type GrpcCallOptions } from "./channel.ts";
import { Contracts } from "./proto.ts";

/** The part of the Kubernetes container runtime interface that this project calls, with its names and field numbers. */
const CRI = `
syntax = "proto3";
package runtime.v1;
service ImageService {
  rpc PullImage(PullImageRequest) returns (PullImageResponse);
}
message ImageSpec { string image = 1; }
message PodSandboxConfig {}
message PullImageRequest { ImageSpec image = 1; PodSandboxConfig sandbox_config = 3; }
message PullImageResponse { string image_ref = 1; }
`;

const PULL = methodOf(new Contracts([CRI]).service("runtime.v1.ImageService"), "PullImage");

/** The image service that kubelet uses. */
export class CriImages {
  readonly #channel: GrpcChannel;

  /** @param options.socket of containerd or another runtime */
  constructor({ socket }: { readonly socket: string }) {
    this.#channel = new GrpcChannel({ socket, source: "the container runtime", headers: {} });
  }

  /** As kubelet pulls, without credentials. @throws SourceError */
  async pull(reference: string, options?: GrpcCallOptions): Promise<void> {
    // Some runtimes fall over a request without a sandbox.
    await this.#channel.unary(PULL, { image: { image: reference }, sandboxConfig: {} }, options);
  }

  close(): void {
    this.#channel.close();
  }
}
